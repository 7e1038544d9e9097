package admit

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestAttached: a container of another tool comes on one network that takes such, as one task that is never started again, and with
// nothing that would have to be done to it, where the cluster allows it; what is wrong is told all at once. Containers of services need no
// such network.
func TestAttached(t *testing.T) {
	txn := allowing().Begin()
	for name, attachable := range map[string]bool{"open": true, "closed": false} {
		txn.Put(state.Wrap(&typesv1.Network{
			Meta: &typesv1.Meta{Id: "net" + name}, Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: name}, Attachable: attachable},
			Ipam: &typesv1.NetworkIPAM{Subnets: []string{"10.7.0.0/24"}},
		}))
	}
	s := txn.Commit(state.Version{EpochNumber: 1, Revision: 2}, time.Unix(0, 0))
	const (
		blue  = `container { attach { path: "/run/netns/blue" } }`
		once  = `restart { condition: RESTART_CONDITION_NONE }`
		dnsrr = `endpoint { mode: ENDPOINT_MODE_DNSRR }`
		open  = `networks { target: "open" }`
	)
	for _, tc := range []struct{ task, more, want string }{
		{blue + once + open, dnsrr, ""},
		{`container { attach { container: "0f2e.a_1-b" } }` + once + open, dnsrr, ""},
		{`container { image: "nginx" } networks { target: "closed" }`, "", ""},
		{blue + once + `networks { target: "closed" }`, dnsrr, `networks: network "closed" takes no containers of other tools; one that does is made with --attachable`},
		{blue, "", `restart.condition: an attached container is not started again: use none; endpoint.mode: an attached container has no virtual address: use dnsrr; networks: an attached container is on exactly one network`},
		{`container { attach { } }` + once + open, dnsrr, `attach: names either the path of a network namespace or a container of containerd`},
		{`container { attach { path: "/run/../etc" container: "a/b" } }` + once + open, dnsrr, `attach: names either the path of a network namespace or a container of containerd; attach.path: "/run/../etc" is no absolute path without detours; attach.container: "a/b" is no id of a container`},
		{`container { image: "nginx" attach { path: "/run/netns/blue" } }` + once + open, dnsrr, `attach: takes no image and no option of a container: another tool runs it`},
		{blue + once + open + ` resources { limits { nano_cpus: 1000000000 } }`, dnsrr + `replicated { replicas: 2 }`, `replicas: an attached container is one: the mode is replicated, with 1 or 0; resources: of an attached container are another tool's`},
		{blue + once + open, `endpoint { mode: ENDPOINT_MODE_DNSRR ports { target_port: 80 published_port: 8080 publish_mode: PUBLISH_MODE_HOST } } global { }`, `replicas: an attached container is one: the mode is replicated, with 1 or 0; ports: of an attached container cannot be published`},
	} {
		spec := &typesv1.ServiceSpec{}
		if err := prototext.Unmarshal([]byte(`annotations { name: "blue" } task { `+tc.task+` } `+tc.more), spec); err != nil {
			t.Fatal(err)
		}
		_, f := Service(s, "", spec)
		got := ""
		if err := f.Err("x"); err != nil {
			lines := strings.Split(err.Error(), "\n  ")
			got = strings.TrimPrefix(strings.Join(lines[len(lines)-max(1, len(lines)-1):], "; "), "x: ")
		}
		if got != tc.want {
			t.Errorf("%s %s:\n%s\nwant\n%s", tc.task, tc.more, got, tc.want)
		}
	}
	txn = s.Begin()
	txn.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c1"}, Spec: &typesv1.ClusterSpec{}}))
	spec := &typesv1.ServiceSpec{}
	if err := prototext.Unmarshal([]byte(`annotations { name: "blue" } task { `+blue+once+open+` } `+dnsrr), spec); err != nil {
		t.Fatal(err)
	}
	_, f := Service(txn.Commit(state.Version{EpochNumber: 1, Revision: 3}, time.Unix(0, 0)), "", spec)
	if err := f.Err("x"); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "shoal cluster update --allow-host-namespaces") {
		t.Errorf("in a cluster that does not allow it: %v", err)
	}
}
