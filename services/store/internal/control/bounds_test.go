package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

// TestNothingLargeIsProposed: whatever a person sends, what gets into the log fits into one message between stores.
func TestNothingLargeIsProposed(t *testing.T) {
	a, node, ctx := newAPI(t)
	s := services{API: a}
	before := node.machine.Snapshot().Version()
	task := serviceSpec("task")
	task.Task.Container.Env = []string{"A=" + strings.Repeat("x", 65<<10)}
	labels := serviceSpec("labels")
	labels.Annotations.Labels["l"] = strings.Repeat("x", 1<<20)
	for _, tc := range []struct {
		req  *controlv1.CreateServiceRequest
		want string
	}{
		{&controlv1.CreateServiceRequest{Spec: task}, "task: has "},
		{&controlv1.CreateServiceRequest{Spec: labels}, "at most 1048576 are allowed"},
		{&controlv1.CreateServiceRequest{Spec: serviceSpec("id"), RequestId: strings.Repeat("i", 65)}, "request_id: has 65 bytes"},
	} {
		if _, err := s.CreateService(ctx, tc.req); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v", tc.want, err)
		}
	}
	many := &controlv1.AnnounceRequest{Addresses: make([]string, 17), Version: strings.Repeat("v", 129)}
	long := &controlv1.AnnounceRequest{Addresses: []string{strings.Repeat("h", 260) + ":1"}}
	for _, req := range []*controlv1.AnnounceRequest{many, long} {
		if _, err := (members{API: a}).Announce(ctx, req); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "at most") {
			t.Errorf("announce: %v", err)
		}
	}
	if node.machine.Snapshot().Version() != before {
		t.Error("something was written")
	}
}

// TestLongHistory: a service with the largest task specs can be updated as often as one likes, and is listed in pages that
// a client takes.
func TestLongHistory(t *testing.T) {
	a, _, ctx := newAPI(t)
	s := services{API: a}
	spec := func(name string, i int) *typesv1.ServiceSpec {
		out := serviceSpec(name)
		out.Task.Container.Env = []string{fmt.Sprintf("A=%02d%s", i, strings.Repeat("x", 63<<10))}
		return out
	}
	made, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec("web", 0)})
	if err != nil {
		t.Fatal(err)
	}
	v := made.GetVersion()
	for i := range 12 {
		up, err := s.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "web", Version: v, Spec: spec("web", i+1)})
		if err != nil {
			t.Fatal(err)
		}
		v = up.GetVersion()
	}
	for i := range 40 {
		if _, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: spec(fmt.Sprintf("s%d", i), i)}); err != nil {
			t.Fatal(err)
		}
	}
	seen, token := 0, ""
	for {
		resp, err := s.ListServices(ctx, &controlv1.ListServicesRequest{PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if n := proto.Size(resp); n > 2200<<10 {
			t.Errorf("a page of %d bytes", n)
		}
		for _, l := range resp.GetServices() {
			if seen++; len(l.GetService().GetSpecHistory()) > 0 {
				t.Errorf("the history of %s is in the list", l.GetService().GetSpec().GetAnnotations().GetName())
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if got, err := s.GetService(ctx, &controlv1.GetServiceRequest{Service: "web"}); err != nil || len(got.GetService().GetSpecHistory()) != 10 || seen != 41 {
		t.Errorf("%d listed; history %d, %v", seen, len(got.GetService().GetSpecHistory()), err)
	}
}

// TestOwnPorts: a port of ours is neither chosen nor given to who asks for it, wherever the tunnels of the cluster end.
func TestOwnPorts(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{{
		RequestId: "x", Caller: &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR},
		Puts: []*storev1.Put{desk.Put(state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "c"}, Spec: &typesv1.ClusterSpec{FirstPort: 2377, LastPort: 2386}}), "spec")},
	}}})
	s := services{API: a}
	for i, want := range []uint32{2378, 2379, 2380, 2386} {
		resp, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec(fmt.Sprintf("s%d", i), &typesv1.PortConfig{TargetPort: 80})})
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.GetService().GetEndpoint().GetPorts()[0].GetPublishedPort(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	if _, err := s.CreateService(ctx, &controlv1.CreateServiceRequest{Spec: serviceSpec("last", &typesv1.PortConfig{TargetPort: 80})}); !errors.Is(err, errs.Exhausted) {
		t.Errorf("all that is left is ours: %v", err)
	}
}

// TestDenialsAreForgotten: a denial whose time has passed goes with the next that is made; the others stay.
func TestDenialsAreForgotten(t *testing.T) {
	a, node, ctx := newAPI(t)
	node.now = time.Unix(1000, 0)
	tx := &storev1.Transaction{RequestId: "x", Caller: &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR}}
	for id, until := range map[string]int64{"agent/old": 999, "agent/young": 1001} {
		d := &typesv1.Denial{Meta: &typesv1.Meta{Id: id}, Until: timestamppb.New(time.Unix(until, 0))}
		tx.Puts = append(tx.Puts, desk.Create(state.Wrap(d), "until"))
	}
	node.machine.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{tx}})
	if _, err := (nodes{API: a}).DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: "w2"}); err != nil {
		t.Fatal(err)
	}
	snap := node.machine.Snapshot()
	if snap.Denial("agent/old") != nil || snap.Denial("agent/young") == nil || snap.Denial("agent/n2") == nil {
		t.Errorf("denied: %v", snap.DeniedList())
	}
}

// cutOff is a leader that does not know yet that another one leads.
type cutOff struct {
	*alone
	asked int
}

func (c *cutOff) Linear(context.Context) (fsm.Image, error) {
	c.asked++
	return fsm.Image{}, errs.New(errs.Unavailable, "no quorum")
}

// TestOldStateRefusesNothing: what is refused from the state that a leader has is refused only if it still leads.
func TestOldStateRefusesNothing(t *testing.T) {
	a, node, ctx := newAPI(t)
	c := &cutOff{alone: node}
	a.admits = desk.New(c)
	_, err := services{API: a}.UpdateService(ctx, &controlv1.UpdateServiceRequest{Service: "nope", Spec: serviceSpec("nope")})
	if !errors.Is(err, errs.Unavailable) || c.asked == 0 {
		t.Errorf("no such service, says a store that may not know: %v", err)
	}
}

// TestHostname: what a machine calls itself now goes before what was certified at its join.
func TestHostname(t *testing.T) {
	n := &typesv1.Node{Identity: &typesv1.NodeIdentity{Hostname: "then"}, Status: &typesv1.NodeStatus{Description: &typesv1.NodeDescription{Hostname: "now"}}}
	if got := state.Hostname(n); got != "now" {
		t.Errorf("called %q", got)
	}
}
