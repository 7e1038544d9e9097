package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/replica"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func spec(name string, ports ...uint32) *typesv1.ServiceSpec {
	s := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/micro:1.0.0"}},
		Endpoint:    &typesv1.EndpointSpec{},
	}
	for _, p := range ports {
		s.Endpoint.Ports = append(s.Endpoint.Ports, &typesv1.PortConfig{TargetPort: 8000, PublishedPort: p})
	}
	return s
}

func (w *world) create(conn *grpc.ClientConn, s *typesv1.ServiceSpec, requestID string) (*controlv1.CreateServiceResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return controlv1.NewServiceServiceClient(conn).CreateService(ctx, &controlv1.CreateServiceRequest{Spec: s, RequestId: requestID})
}

// TestOneStore tells the beginning of the story: a network, a service with an address and a port, lists, removal.
func TestOneStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		ctx := t.Context()
		net, err := controlv1.NewNetworkServiceClient(conn).CreateNetwork(ctx, &controlv1.CreateNetworkRequest{
			Spec: &typesv1.NetworkSpec{Annotations: &typesv1.Annotations{Name: "micro-net"}},
		})
		w.must(err)
		if ipam := net.GetNetwork().GetIpam(); ipam.GetVni() != 4096 || ipam.GetSubnets()[0] != "10.0.0.0/20" {
			t.Errorf("network got %v", ipam)
		}
		s := spec("micro", 0)
		s.Task.Networks = []*typesv1.NetworkAttachment{{Target: "micro-net"}}
		made, err := w.create(conn, s, "r1")
		w.must(err)
		ep := made.GetService().GetEndpoint()
		if ep.GetPorts()[0].GetPublishedPort() != 30000 || ep.GetVirtualIps()[0].GetAddresses()[0] != "10.0.0.2/20" {
			t.Errorf("service got %v", ep)
		}
		again, err := w.create(conn, s, "r1")
		w.must(err)
		if again.GetService().GetMeta().GetId() != made.GetService().GetMeta().GetId() {
			t.Error("a repeated request made another service")
		}
		if _, err := w.create(conn, s, "r2"); !errors.Is(err, errs.Exists) {
			t.Errorf("a second service of that name: %v", err)
		}
		list, err := controlv1.NewServiceServiceClient(conn).ListServices(ctx, &controlv1.ListServicesRequest{})
		w.must(err)
		if n := len(list.GetServices()); n != 1 || list.GetServices()[0].GetCounts().GetDesired() != 1 {
			t.Errorf("list: %v", list)
		}
		_, err = controlv1.NewNetworkServiceClient(conn).DeleteNetwork(ctx, &controlv1.DeleteNetworkRequest{Network: "micro-net"})
		if !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "network micro-net is in use by service micro") {
			t.Errorf("remove a network in use: %v", err)
		}
		_, err = controlv1.NewServiceServiceClient(conn).UpdateService(ctx, &controlv1.UpdateServiceRequest{
			Service: "micro", Version: &typesv1.Version{Epoch: made.GetVersion().GetEpoch(), Revision: 1}, Spec: s,
		})
		if !errors.Is(err, errs.Conflict) || !strings.Contains(err.Error(), "update out of sequence") {
			t.Errorf("stale update: %v", err)
		}
		s.Task.Container.Image = "registry.test/micro:1.1.0"
		up, err := controlv1.NewServiceServiceClient(conn).UpdateService(ctx, &controlv1.UpdateServiceRequest{
			Service: "micro", Version: made.GetVersion(), Spec: s,
		})
		w.must(err)
		if svc := up.GetService(); svc.GetSpecVersion() != 2 || len(svc.GetSpecHistory()) != 1 || svc.GetEndpoint().GetPorts()[0].GetPublishedPort() != 30000 {
			t.Errorf("update: %v", svc)
		}
		_, err = controlv1.NewServiceServiceClient(conn).DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: "micro"})
		w.must(err)
		_, err = controlv1.NewNetworkServiceClient(conn).DeleteNetwork(ctx, &controlv1.DeleteNetworkRequest{Network: "micro-net"})
		w.must(err)
	})
}

// join starts the other stores, and waits until they vote.
func (w *world) join(conn *grpc.ClientConn, names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.start(name)
		w.eventually(name+" votes", func() bool {
			resp, err := controlv1.NewNodeServiceClient(conn).GetNode(context.Background(), &controlv1.GetNodeRequest{Node: name})
			return err == nil && resp.GetNode().GetVoter()
		})
	}
}

func (w *world) leader(conn *grpc.ClientConn) string {
	w.t.Helper()
	lead := ""
	w.eventually("a leader", func() bool {
		list, err := controlv1.NewNodeServiceClient(conn).ListNodes(context.Background(), &controlv1.ListNodesRequest{})
		if err != nil {
			return false
		}
		for _, n := range list.GetNodes() {
			if n.GetManagerStatus() == controlv1.ManagerStatus_MANAGER_STATUS_LEADER {
				lead = n.GetNode().GetMeta().GetId()
			}
		}
		return lead != ""
	})
	return lead
}

// TestThreeStores: two stores join and vote, any of them takes any call, and a watch follows through the loss of the leader.
func TestThreeStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")

		watching := w.anyStore(authzv1.Role_ROLE_SCHEDULER, "m1")
		defer watching.Close()
		env := w.env
		env.Metrics = nil
		r := replica.New(env, storev1.NewWatchServiceClient(watching), state.Kinds()...)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		defer func() { cancel(); <-done }()

		for _, name := range []string{"m1", "m2", "m3"} {
			one := w.dial(authzv1.Role_ROLE_OPERATOR, "ann", name)
			resp, err := w.create(one, spec("by-"+name, 0), "")
			if err != nil {
				t.Errorf("create by %s: %v", name, err)
			}
			got, err := controlv1.NewServiceServiceClient(one).GetService(t.Context(), &controlv1.GetServiceRequest{Service: "by-" + name})
			if err != nil || got.GetService().GetMeta().GetId() != resp.GetService().GetMeta().GetId() {
				t.Errorf("read on %s what was just written there: %v", name, err)
			}
			one.Close()
		}
		w.eventually("stores announce their place in raft", func() bool {
			n := 0
			for m := range r.Snapshot().MembersOfRole(authzv1.Role_ROLE_STORE) {
				if m.GetRaft().GetVoter() && m.GetAddresses()[0] == address(m.GetMachineId()) {
					n++
				}
			}
			return n == 3
		})

		lost := w.leader(conn)
		w.crash(lost)
		began := time.Now()
		made, err := w.create(conn, spec("after"), "after")
		w.must(err)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the first write after the leader's loss took %s", took)
		}
		wait, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		w.must(r.WaitFor(wait, state.VersionOf(made.GetVersion())))
		if r.Snapshot().ServiceByName("after") == nil {
			t.Error("the watch missed what was written after the leader's loss")
		}
		w.start(lost)
		w.eventually("the lost store follows", func() bool {
			one := w.dial(authzv1.Role_ROLE_VIEWER, "bob", lost)
			defer one.Close()
			_, err := controlv1.NewServiceServiceClient(one).GetService(t.Context(), &controlv1.GetServiceRequest{Service: "after"})
			return err == nil
		})
	})
}

// TestHandOver: a leader that is stopped in order leaves no gap: another leads before it goes.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		s := w.stores[w.leader(conn)]
		s.cancel()
		w.must(<-s.done)
		s.cancel = nil
		began := time.Now()
		_, err := w.create(conn, spec("after"), "after")
		w.must(err)
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("the first write after the leader's stop took %s", took)
		}
	})
}

// TestNoQuorum: with two of three stores gone, reads and writes say so in the words that people know.
func TestNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		w.crash("m2")
		w.crash("m3")
		time.Sleep(5 * time.Second)
		one := w.dial(authzv1.Role_ROLE_OPERATOR, "ann", "m1")
		defer one.Close()
		_, err := w.create(one, spec("lonely"), "")
		if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "more than half of the managers") {
			t.Errorf("write: %v", err)
		}
	})
}

// TestPortsUnderLoad: creates at the same time, through all stores, get ports of their own, and a clash of explicit choices
// has one winner.
func TestPortsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		const n = 60
		type result struct {
			port uint32
			err  error
		}
		results := make(chan result, n)
		for i := range n {
			go func() {
				want := uint32(0)
				if i%3 == 0 {
					want = 31000
				}
				resp, err := w.create(conn, spec(fmt.Sprintf("s%d", i), want), "")
				r := result{err: err}
				if err == nil {
					r.port = resp.GetService().GetEndpoint().GetPorts()[0].GetPublishedPort()
				}
				results <- r
			}()
		}
		seen, refused := map[uint32]bool{}, 0
		for range n {
			r := <-results
			switch {
			case errors.Is(r.err, errs.Exists):
				refused++
			case r.err != nil:
				t.Error(r.err)
			case seen[r.port]:
				t.Errorf("port %d was given twice", r.port)
			}
			seen[r.port] = true
		}
		if refused != n/3-1 || !seen[31000] {
			t.Errorf("%d of the explicit choices were refused, want all but one of %d", refused, n/3)
		}
	})
}

// TestNodeRemove: a manager's voter goes with it, its identities are denied, and its store stops.
func TestNodeRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		nodes := controlv1.NewNodeServiceClient(conn)
		_, err := nodes.DeleteNode(t.Context(), &controlv1.DeleteNodeRequest{Node: "host-m2"})
		if !errors.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "node host-m2 is not down and can't be removed") {
			t.Errorf("remove a node that is up: %v", err)
		}
		gone := w.leader(conn)
		one := w.dial(authzv1.Role_ROLE_OPERATOR, "ann", "m1")
		if gone == "m1" {
			one.Close()
			one = w.dial(authzv1.Role_ROLE_OPERATOR, "ann", "m2")
		}
		defer one.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err = controlv1.NewNodeServiceClient(one).DeleteNode(ctx, &controlv1.DeleteNodeRequest{Node: gone, Force: true}); err != nil {
			t.Fatalf("remove the leader's node: %v", err)
		}
		s := w.stores[gone]
		select {
		case err := <-s.done:
			s.cancel = nil
			if err == nil || !strings.Contains(err.Error(), "removed from the cluster") {
				t.Errorf("the removed store ended with %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the removed store goes on")
		}
		if _, err := w.create(one, spec("after"), ""); err != nil {
			t.Errorf("write after the removal: %v", err)
		}
		list, err := controlv1.NewNodeServiceClient(one).ListNodes(t.Context(), &controlv1.ListNodesRequest{})
		if err != nil || len(list.GetNodes()) != 2 {
			t.Errorf("nodes after the removal: %v, %v", list, err)
		}
	})
}

// TestColdStart: everything off, and on again later, needs nobody.
func TestColdStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("m1")
		defer w.stop()
		conn := w.anyStore(authzv1.Role_ROLE_OPERATOR, "ann")
		defer conn.Close()
		w.join(conn, "m2", "m3")
		made, err := w.create(conn, spec("before", 0), "")
		w.must(err)
		for _, name := range []string{"m1", "m2", "m3"} {
			w.crash(name)
		}
		time.Sleep(2 * time.Hour)
		for _, name := range []string{"m3", "m2", "m1"} {
			w.start(name)
		}
		w.eventually("the service is there", func() bool {
			got, err := controlv1.NewServiceServiceClient(conn).GetService(t.Context(), &controlv1.GetServiceRequest{Service: "before"})
			return err == nil && got.GetService().GetMeta().GetId() == made.GetService().GetMeta().GetId()
		})
	})
}
