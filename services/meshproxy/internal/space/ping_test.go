package space_test

import (
	"net"
	"os"
	"testing"
	"time"
)

// pings says whether an echo to an address is answered, from that address.
func (r *rig) pings(network, address string) (answered bool) {
	r.client.do(func() error {
		conn, err := net.Dial(network, address)
		if err != nil {
			return err
		}
		defer conn.Close()
		request, reply := byte(8), byte(0)
		if network != "ip4:icmp" {
			request, reply = 128, 129 // the kernel sets the checksum
		}
		id := byte(os.Getpid())
		echo := []byte{request, 0, 0, 0, 0, id, 0, 1}
		sum := ^(uint16(request)<<8 + uint16(id) + 1)
		if network == "ip4:icmp" {
			echo[2], echo[3] = byte(sum>>8), byte(sum)
		}
		if _, err := conn.Write(echo); err != nil {
			return nil //nolint:nilerr // refused
		}
		_ = conn.SetReadDeadline(time.Now().Add(time.Second))
		for buf := make([]byte, 100); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return nil //nolint:nilerr // nothing comes
			}
			message := buf[:n]
			if network == "ip4:icmp" && n > 20 {
				message = message[20:] // behind the header
			}
			if len(message) >= 6 && message[0] == reply && message[5] == id {
				answered = true
				return nil
			}
		}
	})
	return answered
}

// TestVirtualAddressIsPinged: an echo to a virtual address is answered, by a task behind it and as from the address, as long as there is one.
func TestVirtualAddressIsPinged(t *testing.T) {
	r := newRig(t)
	for _, tasks := range [][]int{{11, 12}, {12}, nil} {
		r.tell([]int{10, 11, 12}, tasks)
		for network, address := range map[string]string{"ip4:icmp": "10.0.0.2", "ip6:ipv6-icmp": "fd01::2"} {
			if got := r.pings(network, address); got != (len(tasks) > 0) {
				t.Errorf("with %d tasks behind it %s answers an echo: %t", len(tasks), address, got)
			}
		}
	}
}
