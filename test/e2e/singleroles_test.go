package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/harness"
)

// Every control process comes to hosts of its own and leaves the first one, one by one, under a steady load: no call fails,
// no request fails, no machine is silent for a moment, and no container changes.
func TestSingleRolesUnderLoad(t *testing.T) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 4, NoInit: true})
	c.form("w1", "w2")
	c.shoal("service", "create", "--name", "micro", "-p", "8000", "--replicas", "6", c.image("1.0.0"))
	c.converged("micro", 6, 30*time.Second)
	for _, host := range []string{"m1", "w1", "w2"} {
		until(t, host+" answers", 10*time.Second, func() string {
			_, err := ask(t.Context(), published(c.address(host), 30000))
			return words(err)
		})
	}
	containers, since := c.everyContainer(), c.since()
	if !strings.Contains(since, "Ready since 20") {
		t.Fatalf("the machines do not tell since when they are ready: %s", since)
	}
	web := startLoad(t.Context(), published(c.address("w1"), 30000), published(c.address("w2"), 30000), published(c.address("m1"), 30000))
	defer web.stop()
	creates := c.startCreates()
	defer creates.stop()

	check := func(t *testing.T, what string) {
		t.Helper()
		f := web.take()
		made, gap, err := creates.take()
		t.Logf("%s: %s; %d creates, the longest took %s", what, f, made, gap.Round(time.Millisecond))
		if f.failed > 0 {
			t.Errorf("%s: %d of %d requests failed: %v", what, f.failed, f.sent, f.example)
		}
		if err != nil {
			t.Errorf("%s: a create failed: %v", what, err)
		}
		if now := c.since(); now != since {
			t.Errorf("%s: a machine was not READY all the time: %s, was %s", what, now, since)
		}
	}
	token := c.shoal("join-token", "manager", "-q")
	add := func(host, role string, more ...string) step {
		return step{role + " comes to " + host, func(t *testing.T, c *cluster) {
			c.on(host, append(append([]string{"shoal", "join", "--roles", role}, more...), "--token", token, c.address("m1"))...)
			c.hasMember(role+"/"+host, "Well")
			check(t, role+" on "+host)
		}}
	}
	leave := func(member string) step {
		return step{member + " leaves", func(t *testing.T, c *cluster) {
			began := time.Now()
			c.shoal("member", "drain", member)
			drained := time.Since(began)
			c.shoal("member", "rm", member)
			t.Logf("%s drained in %s", member, drained.Round(time.Millisecond))
			if _, there := c.members()[member]; there {
				t.Errorf("%s is still there", member)
			}
			check(t, member+" gone")
		}}
	}
	c.tell([]step{
		add("w3", "dispatcher"), add("w4", "dispatcher"),
		add("w3", "gateway"), add("w4", "gateway"),
		add("w3", "scheduler"), add("w4", "scheduler"),
		add("w3", "ca"), add("w4", "ca"),
		add("w3", "store", "--learner"), add("w4", "store", "--learner"),
		{"the machines are shared out", func(t *testing.T, c *cluster) {
			took := until(t, "dispatchers that came have machines", 30*time.Second, func() string {
				loads := lines(c.shoal("member", "ls", "--filter", "role=dispatcher", "--format", "{{.Name}} {{.Load}}"))
				if !slices.Contains(loads, "dispatcher/m1 1") {
					return strings.Join(loads, ", ")
				}
				return ""
			})
			t.Logf("after %s", took.Round(time.Millisecond))
			c.shoal("node", "ls") // the context learns the gateways
			check(t, "shared out")
		}},
		leave("dispatcher/m1"), leave("scheduler/m1"), leave("ca/m1"), leave("store/w3"), leave("gateway/m1"),
	})
	if now := c.everyContainer(); now != containers {
		t.Errorf("containers changed: %s, were %s", now, containers)
	}
	// What is left works: the scheduler, dispatchers, gateways and CAs that came.
	c.shoal("service", "scale", "micro=8")
	c.converged("micro", 8, 30*time.Second)
	check(t, "scaled")
}

// since tells since when each machine is in its state.
func (c *cluster) since() string {
	c.t.Helper()
	var out []string
	for _, line := range lines(c.shoal("node", "ls", "--format", "{{.Hostname}} {{.Status}}")) {
		host, state, _ := strings.Cut(line, " ")
		out = append(out, fmt.Sprint(host, " ", state, " since ", c.shoal("node", "inspect", "--format", "{{.Status.Since}}", host)))
	}
	return strings.Join(out, "; ")
}

// creates makes and removes services through whichever gateways there are, as a person's tool with a context does.
type creates struct {
	cancel context.CancelFunc
	done   chan struct{}
	dir    *directory.Directory
	conn   interface{ Close() error }

	members  controlv1.MemberServiceClient
	services controlv1.ServiceServiceClient

	mu    sync.Mutex // guards below
	made  int
	took  time.Duration
	fault error
}

const createPeriod = 100 * time.Millisecond

func (c *cluster) startCreates() *creates {
	c.t.Helper()
	env := run.Machine("test")
	env.Log = slog.New(slog.DiscardHandler)
	keep, err := identity.Load(env, c.certs())
	c.must(err)
	dir, err := directory.New(env.Files, c.t.TempDir()+"/directory.json")
	c.must(err)
	c.must(dir.Set(&cav1.Directory{Entries: []*cav1.DirectoryEntry{
		{Role: authzv1.Role_ROLE_GATEWAY, MachineId: "first", Addresses: []string{c.address("m1") + ":2384"}},
	}}))
	conn, err := rpc.Dial(env, keep, dir, authzv1.Role_ROLE_GATEWAY)
	c.must(err)
	ctx, cancel := context.WithCancel(c.t.Context())
	w := &creates{
		cancel: cancel, done: make(chan struct{}), dir: dir, conn: conn,
		members: controlv1.NewMemberServiceClient(conn), services: controlv1.NewServiceServiceClient(conn),
	}
	go w.run(ctx)
	return w
}

func (w *creates) run(ctx context.Context) {
	defer close(w.done)
	tick := time.NewTicker(createPeriod)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		began := time.Now()
		err := w.one(ctx, fmt.Sprintf("load-%d", i))
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.made++
		w.took = max(w.took, time.Since(began))
		if err != nil {
			w.fault = err
		}
		w.mu.Unlock()
		if i%10 == 0 {
			w.learn(ctx)
		}
	}
}

// one makes a service without tasks and removes it.
func (w *creates) one(ctx context.Context, name string) error {
	_, err := w.services.CreateService(ctx, &controlv1.CreateServiceRequest{RequestId: name, Spec: &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: name},
		Task:        &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{Image: "registry.test/none:1"}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{}},
	}})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	if _, err := w.services.DeleteService(ctx, &controlv1.DeleteServiceRequest{Service: name}); err != nil {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// learn asks who the gateways are; one that is drained is left.
func (w *creates) learn(ctx context.Context) {
	resp, err := w.members.ListMembers(ctx, &controlv1.ListMembersRequest{Filters: []string{"role=gateway"}})
	if err != nil {
		w.mu.Lock()
		w.fault = fmt.Errorf("list gateways: %w", err)
		w.mu.Unlock()
		return
	}
	var all []*typesv1.Member
	for _, m := range resp.GetMembers() {
		all = append(all, m.GetMember())
	}
	_ = w.dir.Set(directory.FromMembers(slices.Values(all))) // kept on disk for nobody
}

// take returns how many were made since the last call, what the slowest took, and a fault if there was one.
func (w *creates) take() (made int, took time.Duration, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	made, took, fault = w.made, w.took, w.fault
	w.made, w.took, w.fault = 0, 0, nil
	return made, took, fault
}

func (w *creates) stop() {
	w.cancel()
	<-w.done
	_ = w.conn.Close() // nothing is under way any more
}
