package scheduler_test

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler"
)

// TestRun: the process as it is on a machine, over mutual TLS against a store in memory: it announces itself, takes the
// lease, and gives a new service its task.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		authority := identitytest.New(t, env, "cluster")
		store := replicatest.New(env,
			state.Wrap(&typesv1.Cluster{Meta: &typesv1.Meta{Id: "cluster"},
				Authority: &typesv1.Authority{Bundle: authority.Bundle()},
				DataPath:  &typesv1.DataPath{MachineNetwork: "10.128.0.0/10", MachineNetwork6: "fd00:1:2::/48"}}),
			state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: "n"},
				Status: &typesv1.NodeStatus{State: typesv1.NodeState_NODE_STATE_READY}}))
		serve(t, env, authority, store)

		env.Metrics = nil
		authority.Write(t, env, "/data/identity", identitytest.Leaf{URIs: []string{authority.ID(authzv1.Role_ROLE_SCHEDULER, "m").URI()}})
		if err := directory.Write(env.Files, "/data/directory.json", &cav1.Directory{Entries: []*cav1.DirectoryEntry{
			{Role: authzv1.Role_ROLE_STORE, MachineId: "s", Addresses: []string{"10.0.0.1:2381"}},
		}}); err != nil {
			t.Fatal(err)
		}
		cfg := scheduler.DefaultConfig()
		cfg.Base = config.Base{Data: "/data", Advertise: []string{"10.0.0.2"}}
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- scheduler.Run(ctx, cfg, env) }()
		time.Sleep(2 * time.Second)
		store.Put(state.Wrap(&typesv1.Service{Meta: &typesv1.Meta{Id: "web"}, SpecVersion: 1, Spec: &typesv1.ServiceSpec{
			Mode: &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: proto.Uint64(3)}}}}))
		time.Sleep(time.Second)

		s := store.Snapshot()
		if m := s.Member("scheduler/m"); !slices.Equal(m.GetAddresses(), []string{"10.0.0.2:2382"}) {
			t.Errorf("announced as %v", m)
		}
		if h := s.Lease("scheduler").GetHolder(); h != "scheduler/m" {
			t.Errorf("the lease is held by %q", h)
		}
		if n := len(slices.Collect(s.TasksOfNode("n"))); n != 3 {
			t.Errorf("%d tasks on the node, want 3", n)
		}
		if n := len(s.Node("n").GetBlocks()); n != 2 {
			t.Errorf("the node has the blocks %v, want two", s.Node("n").GetBlocks())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		if h := store.Snapshot().Lease("scheduler").GetHolder(); h != "" {
			t.Errorf("after a graceful stop the lease is held by %q", h)
		}
	})
}

// serve runs the fake store as a member of the cluster.
func serve(t *testing.T, env run.Env, authority *identitytest.Authority, store *replicatest.Store) {
	server := rpc.NewServer(env, authority.Keeper(t, env, authority.ID(authzv1.Role_ROLE_STORE, "s")))
	storev1.RegisterWatchServiceServer(server.GRPC(), store)
	storev1.RegisterCommitServiceServer(server.GRPC(), store)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve([]string{"10.0.0.1:2381"})(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func TestConfig(t *testing.T) {
	bad := scheduler.DefaultConfig()
	bad.Lease = time.Millisecond
	bad.LogLevel = "loud"
	var fields []string
	for _, f := range errs.FaultsOf(bad.Validate()) {
		fields = append(fields, f.Field)
	}
	slices.Sort(fields)
	if want := []string{"advertise", "lease", "log_level"}; !slices.Equal(fields, want) {
		t.Errorf("faults in %v, want all of %v at once", fields, want)
	}
}
