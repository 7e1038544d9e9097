package space_test

import "testing"

// A container on a network with thousands of services has all their addresses, from one transaction.
func TestThousandsOfServices(t *testing.T) {
	r := newRig(t)
	r.among = 3000
	r.tell([]int{10, 11, 12}, []int{11})
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "11:2")
	r.tell([]int{10, 11, 12}, []int{12})
	r.expect(r.who("tcp", "10.0.0.2:80", 2), "12:2")
}
