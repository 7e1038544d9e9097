package admit

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestFixedAddresses: an address that a service names for a slot must be one that its tasks can have, and nobody else's; what is
// wrong is told all at once. Its own tasks and its own names are no reason.
func TestFixedAddresses(t *testing.T) {
	txn := snapshot().Begin()
	txn.Put(state.Wrap(&typesv1.Network{
		Meta: &typesv1.Meta{Id: "netid2"}, Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: "back"}},
		Ipam: &typesv1.NetworkIPAM{Subnets: []string{"10.7.0.0/24", "fd07::/64"}, Reserved: []string{"10.7.0.5"}},
	}))
	named := func(id, name, address string) {
		txn.Put(state.Wrap(&typesv1.Service{
			Meta: &typesv1.Meta{Id: id},
			Spec: &typesv1.ServiceSpec{Annotations: &typesv1.Annotations{Name: name}, Task: &typesv1.TaskSpec{Networks: []*typesv1.NetworkAttachment{{
				Target: "netid2", Addresses: []string{address}}}}},
			Endpoint: &typesv1.Endpoint{VirtualIps: []*typesv1.VirtualIP{{NetworkId: "netid2", Addresses: []string{"10.7.0.2" + id[3:] + "/24"}}}},
		}))
		txn.Put(state.Wrap(&typesv1.Task{Meta: &typesv1.Meta{Id: "t" + id}, ServiceId: id, Decided: &typesv1.TaskDecided{
			Slot: 1, NodeId: "n", Addresses: []*typesv1.TaskAddress{{NetworkId: "netid2", Addresses: []string{"10.7.0.3" + id[3:] + "/24"}}}}}))
	}
	named("svc2", "db", "10.7.0.42")
	named("svc3", "web", "10.7.0.33")
	s := txn.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	for _, tc := range []struct{ addresses, more, want string }{
		{"10.7.0.9", "", ""},
		{"10.7.0.9 10.7.0.10 fd07::9 fd07:0::10", `replicated { replicas: 2 }`, ""},
		{"10.7.0.33", "", ""},
		{"10.7.0.9", `replicated { replicas: 2 }`, "addresses: has 1 of IPv4 for up to 2 tasks"},
		{"10.7.0.9", `autoscale { min: 1 max: 4 cpu_percent: 50 } task { resources { limits { nano_cpus: 1000000000 } } }`, "addresses: has 1 of IPv4 for up to 4 tasks"},
		{"10.7.0.9", `rebalance { always: true }`, "rebalance: would have a task run beside the one that it follows"},
		{"10.7.0.9", `rebalance { request: 7 }`, "rebalance: would have a task run beside the one that it follows"},
		{"", `rebalance { always: true }`, ""},
		{"10.7.0.9", `global {}`, "addresses: are given by slot"},
		{"10.7.0.9", `update { order: UPDATE_ORDER_START_FIRST }`, "update.order: a task with an address of its slot's own"},
		{"x 10.8.0.1 10.7.0.0 10.7.0.1 10.7.0.255", "", `addresses[0]: "x" is no address; addresses[1]: 10.8.0.1 is in no subnet of network "back"; addresses[2]: 10.7.0.0 is given to nobody; addresses[3]: 10.7.0.1 is given to nobody; addresses[4]: 10.7.0.255 is given to nobody`},
		{"10.7.0.9 10.7.0.9", "", "addresses[1]: 10.7.0.9 is named twice"},
		{"10.7.0.42 10.7.0.22 10.7.0.32 10.7.0.5", "", `addresses[0]: 10.7.0.42 is named by service "db"; addresses[1]: 10.7.0.22 is the virtual address of service "db"; addresses[2]: 10.7.0.32 is that of task "db.1"; addresses[3]: 10.7.0.5 is kept for somebody else by network "back"`},
	} {
		spec := &typesv1.ServiceSpec{}
		if err := prototext.Unmarshal([]byte(merge(`annotations { name: "web" } task { container { image: "nginx" } } `+tc.more)), spec); err != nil {
			t.Fatal(err)
		}
		spec.Task.Networks = []*typesv1.NetworkAttachment{{Target: "back", Addresses: strings.Fields(tc.addresses)}}
		_, f := Service(s, "svc3", spec)
		err := f.Err("x")
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s %s: %v", tc.addresses, tc.more, err)
		case tc.want == "":
		case err == nil:
			t.Errorf("%s %s: admitted, want %s", tc.addresses, tc.more, tc.want)
		default:
			for part := range strings.SplitSeq(tc.want, "; ") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s %s: %v, want %s", tc.addresses, tc.more, err, part)
				}
			}
		}
	}
}
