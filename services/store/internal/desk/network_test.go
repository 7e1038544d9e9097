package desk

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/shoalproject/shoal/internal/state"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// What can be given is the range without what nobody gets; what is used are the addresses of services and tasks.
func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		name, subnet    string
		ranges, keeps   []string
		total, usedWith uint64
	}{
		{"a whole subnet", "10.5.0.0/29", nil, nil, 5, 1},
		{"with a gateway of one's own and another's", "10.5.0.0/29", nil, []string{"10.5.0.6", "10.5.0.5"}, 3, 1},
		{"with the usual gateway named", "10.5.0.0/29", nil, []string{"10.5.0.1"}, 5, 1},
		{"a range at the end", "10.5.0.0/24", []string{"10.5.0.252/30"}, nil, 3, 0},
		{"a range in the middle", "10.5.0.0/24", []string{"10.5.0.16/28"}, []string{"10.5.0.17", "10.5.0.3"}, 15, 0},
		{"IPv6", "fd01::/120", nil, nil, 254, 0},
		{"large IPv6", "fd01::/64", nil, nil, 1<<63 - 3, 0},
	} {
		n := &typesv1.Network{Meta: &typesv1.Meta{Id: "n"}, Ipam: &typesv1.NetworkIPAM{Subnets: []string{tc.subnet}, Ranges: tc.ranges, Reserved: tc.keeps}}
		svc := &typesv1.Service{Meta: &typesv1.Meta{Id: "s"}, Endpoint: &typesv1.Endpoint{
			VirtualIps: []*typesv1.VirtualIP{{NetworkId: "n", Addresses: []string{"10.5.0.2/29"}}, {NetworkId: "other", Addresses: []string{"10.5.0.3/29"}}},
		}}
		tx := state.Empty().Begin()
		tx.Put(state.Wrap(n))
		tx.Put(state.Wrap(svc))
		s := tx.Commit(state.Version{Revision: 1}, time.Time{})
		want := []*controlv1.SubnetUsage{{Subnet: tc.subnet, Total: tc.total, Used: tc.usedWith}}
		if d := cmp.Diff(want, Usage(s, n), protocmp.Transform()); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// A network gets a subnet of each family that it wants, IPv4 first, and keeps what is somebody else's.
func TestIPAM(t *testing.T) {
	a := New(nil)
	d := &Desk{Snap: state.Empty(), a: a}
	got, err := d.IPAM("x", &typesv1.NetworkSpec{
		Subnets: []string{"fd01::/64", "10.5.0.0/24"}, Gateways: []string{"10.5.0.9", "FD01:0::9"},
		AuxAddresses: map[string]string{"printer": "10.5.0.8", "again": "10.5.0.9"}, IpRanges: []string{"10.5.0.0/25"},
	})
	want := &typesv1.NetworkIPAM{
		Subnets: []string{"10.5.0.0/24", "fd01::/64"}, Vni: 4096, Ranges: []string{"10.5.0.0/25"}, Reserved: []string{"10.5.0.8", "10.5.0.9", "fd01::9"},
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" || err != nil {
		t.Error(d, err)
	}
	got, err = d.IPAM("x", &typesv1.NetworkSpec{Ipv6: true})
	if err != nil || len(got.GetSubnets()) != 2 || got.GetSubnets()[0] != "10.0.0.0/20" {
		t.Errorf("got %v, %v", got, err)
	}
}

// A service gets no virtual address that a task has given back lately.
func TestVirtualAddressesLetOthersRest(t *testing.T) {
	n := &typesv1.Network{Meta: &typesv1.Meta{Id: "n"}, Resting: []*typesv1.RestingAddress{{Address: "10.5.0.3"}, {Address: "fd01::2"}}}
	taken := awake(func(claim string) bool { return claim == state.AddressClaim("n", "10.5.0.2") }, n)
	for a, want := range map[string]bool{"10.5.0.2": true, "10.5.0.3": true, "10.5.0.4": false, "fd01::2": true, "fd01::3": false} {
		if got := taken(state.AddressClaim("n", a)); got != want {
			t.Errorf("%s is taken: %t, want %t", a, got, want)
		}
	}
}
