package sim

import (
	"context"
	"fmt"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/agent"
	"github.com/shoalproject/shoal/services/agent/agenttest"
	"github.com/shoalproject/shoal/services/ca"
	"github.com/shoalproject/shoal/services/dispatcher"
	"github.com/shoalproject/shoal/services/gateway"
	"github.com/shoalproject/shoal/services/meshproxy"
	"github.com/shoalproject/shoal/services/meshproxy/meshproxytest"
	"github.com/shoalproject/shoal/services/scheduler"
	"github.com/shoalproject/shoal/services/store"
	"github.com/shoalproject/shoal/services/store/storetest"
	"github.com/shoalproject/shoal/test/sim/simhost"
)

// Plan says which processes run on which host. The first host begins the cluster, the others join it in order.
type Plan []Place

// Place is one host's part.
type Place struct {
	Host  string
	Roles []authzv1.Role
}

// Machine is a host with what of it outlives a process: the store's disk, the containers, the kernel's tables.
type Machine struct {
	*simhost.Host
	Address string
	Roles   []authzv1.Role
	// ID is its machine id.
	ID string
	// Raft is the store's disk.
	Raft *storetest.Disk
	// Runtime has its containers.
	Runtime *agenttest.Host
	// Tables are its network.
	Tables *meshproxytest.Tables
	// Learner has its store join as one that stays one.
	Learner bool
}

// Cluster is a simulated cluster.
type Cluster struct {
	W        *simhost.World
	Machines []*Machine
	// Operator is the person who began it.
	Operator *Operator

	t     *testing.T
	rand  *run.Rand
	began ca.BootstrapResult
}

// restartAfter is how soon a host starts a process that has ended.
const restartAfter = 100 * time.Millisecond

// Standard is the plan of the story: 3 stores, 2 schedulers, 2 dispatchers, 2 CAs, a gateway and some hollow nodes.
func Standard(nodes int) Plan {
	plan := Plan{
		{"m1", []authzv1.Role{
			authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
			authzv1.Role_ROLE_GATEWAY,
		}},
		{"m2", []authzv1.Role{
			authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
		}},
		{"m3", []authzv1.Role{authzv1.Role_ROLE_STORE}},
	}
	for i := range nodes {
		plan = append(plan, Place{fmt.Sprintf("n%02d", i+1), []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}})
	}
	return plan
}

// New makes the hosts, begins the cluster on the first and joins the others, and waits until all processes are ready.
func New(t *testing.T, seed uint64, plan Plan) *Cluster {
	t.Helper()
	c := &Cluster{W: simhost.New(t, seed), t: t, rand: run.NewRand(seed)}
	for i, p := range plan {
		c.Machines = append(c.Machines, c.machine(p, i))
	}
	c.begin(c.Machines[0])
	for _, m := range c.Machines[1:] {
		c.join(m)
	}
	return c
}

func (c *Cluster) machine(p Place, i int) *Machine {
	addr := fmt.Sprintf("10.9.%d.%d", i/200, i%200+1)
	h := c.W.Host(p.Host, addr)
	h.AutoRestart(restartAfter)
	rand := run.NewRand(c.W.Seed + uint64(i))
	return &Machine{
		Host: h, Address: addr, Roles: p.Roles,
		Raft: storetest.NewDisk(rand), Runtime: agenttest.NewHost(p.Host, rand), Tables: meshproxytest.NewTables(),
	}
}

// begin is `shoal init`.
func (c *Cluster) begin(m *Machine) {
	c.t.Helper()
	cfg := ca.DefaultBootstrapConfig()
	cfg.Advertise = []string{m.Address}
	cfg.Roles = nil
	for _, r := range m.Roles {
		cfg.Roles = append(cfg.Roles, identity.RoleName(r))
	}
	c.once(m, "bootstrap", func(_ context.Context, env run.Env) (err error) {
		c.began, err = ca.Bootstrap(cfg, env)
		return err
	})
	m.ID = c.began.MachineID
	c.startAll(m)
	c.Operator = newOperator(c, m.Address)
	for _, r := range m.Roles {
		m.Await(c.t, identity.RoleName(r), time.Minute)
	}
}

// Add makes one more host, which has nothing to do with the cluster yet.
func (c *Cluster) Add(p Place) *Machine { return c.machine(p, len(c.W.Hosts())) }

// Join is `shoal join` and the start of the processes. A machine that joined is one of the cluster's.
func (c *Cluster) Join(m *Machine, token string) error {
	err := m.Command("join", func(ctx context.Context, env run.Env) error {
		res, err := enroll.Join(ctx, env, enroll.Request{
			Token: token, Addresses: []string{c.Machines[0].Address + ":2377"},
			Advertise: []string{m.Address}, Roles: m.Roles,
		})
		m.ID = res.MachineID
		return err
	})
	if err != nil {
		return err
	}
	if !slices.Contains(c.Machines, m) {
		c.Machines = append(c.Machines, m)
	}
	c.startAll(m)
	return nil
}

// join is that of a machine of the plan.
func (c *Cluster) join(m *Machine) {
	c.t.Helper()
	token := c.began.WorkerToken
	if !slices.Contains(m.Roles, authzv1.Role_ROLE_AGENT) {
		token = c.began.ManagerToken
	}
	if err := c.Join(m, token); err != nil {
		c.t.Fatalf("join of %s: %v", m.Name, err)
	}
	for _, r := range m.Roles {
		m.Await(c.t, identity.RoleName(r), time.Minute)
	}
}

// ManagerToken is the one of the beginning.
func (c *Cluster) ManagerToken() string { return c.began.ManagerToken }

// WorkerToken is the one of the beginning.
func (c *Cluster) WorkerToken() string { return c.began.WorkerToken }

// once runs a command on a host, which must succeed.
func (c *Cluster) once(m *Machine, name string, f simhost.Run) {
	c.t.Helper()
	if err := m.Command(name, f); err != nil {
		c.t.Fatalf("%s on %s: %v", name, m.Name, err)
	}
}

func (c *Cluster) startAll(m *Machine) {
	c.t.Helper()
	roles := slices.Clone(m.Roles)
	for _, r := range shuffled(c.rand, roles) { // nothing may depend on the order
		if err := m.Start(identity.RoleName(r), m.process(r)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// base is a process's part of the config.
func (m *Machine) base(r authzv1.Role) config.Base {
	return config.Base{
		Data: path.Join(enroll.DefaultRoot, identity.RoleName(r)), Advertise: []string{m.Address}, LogLevel: "debug",
	}
}

// process is a role's Run with what this machine has for it. What must die at the very moment of a crash is told so.
func (m *Machine) process(r authzv1.Role) simhost.Run {
	base := m.base(r)
	switch r {
	case authzv1.Role_ROLE_CA:
		cfg := ca.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error { return ca.Run(ctx, cfg, env) }
	case authzv1.Role_ROLE_STORE:
		cfg := store.DefaultConfig()
		cfg.Base, cfg.Learner = base, m.Learner
		return func(ctx context.Context, env run.Env) error {
			m.OnDeath("store", m.Raft.Crash)
			return store.Run(ctx, cfg, store.Env{Env: env, Storage: m.Raft})
		}
	case authzv1.Role_ROLE_SCHEDULER:
		cfg := scheduler.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error { return scheduler.Run(ctx, cfg, env) }
	case authzv1.Role_ROLE_DISPATCHER:
		cfg := dispatcher.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error { return dispatcher.Run(ctx, cfg, env) }
	case authzv1.Role_ROLE_GATEWAY:
		cfg := gateway.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error { return gateway.Run(ctx, cfg, env) }
	case authzv1.Role_ROLE_AGENT:
		cfg := agent.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error {
			m.OnDeath("agent", m.Runtime.Crash)
			return agent.Run(ctx, cfg, m.Runtime.Env(env))
		}
	case authzv1.Role_ROLE_MESHPROXY:
		cfg := meshproxy.DefaultConfig()
		cfg.Base = base
		return func(ctx context.Context, env run.Env) error {
			env.Net = containers{env.Net, m}
			return meshproxy.Run(ctx, cfg, meshproxy.Env{Env: env, Tables: m.Tables})
		}
	default:
		return func(context.Context, run.Env) error { return fmt.Errorf("no process has the role %s", r) }
	}
}

// Machine finds a host by name.
func (c *Cluster) Machine(name string) *Machine {
	for _, m := range c.Machines {
		if m.Name == name {
			return m
		}
	}
	c.t.Fatalf("no host %s", name)
	return nil
}

// With lists the machines that have a role.
func (c *Cluster) With(r authzv1.Role) []*Machine {
	var out []*Machine
	for _, m := range c.Machines {
		if slices.Contains(m.Roles, r) {
			out = append(out, m)
		}
	}
	return out
}

// PowerOff is a power cut: everything on the host dies, containers too, and what was in /run is gone.
func (m *Machine) PowerOff() {
	m.Crash()
	m.Runtime.PowerOff()
	files := m.Disk.Files()
	for _, dir := range []string{"/run/shoal/mesh/", "/run/shoal/"} {
		names, _ := files.List(dir) // an error of the simulated disk's owner's view cannot be
		for _, name := range names {
			_ = files.Remove(dir + name)
		}
	}
}

// KillAll kills every process on the machine; its containers run on.
func (m *Machine) KillAll() {
	for _, name := range m.Running() {
		m.Kill(name)
	}
}

// StartAll starts every process of the cluster that does not run, in an order of chance, with up to gap between two.
func (c *Cluster) StartAll(gap time.Duration, on ...*Machine) {
	c.t.Helper()
	type start struct {
		m    *Machine
		name string
	}
	var all []start
	for _, m := range on {
		for _, r := range m.Roles {
			if name := identity.RoleName(r); !slices.Contains(m.Running(), name) {
				all = append(all, start{m, name})
			}
		}
	}
	for _, s := range shuffled(c.rand, all) {
		if err := s.m.StartAgain(s.name); err != nil {
			c.t.Fatal(err)
		}
		if gap > 0 {
			time.Sleep(time.Duration(c.rand.IntN(int(gap/time.Millisecond))) * time.Millisecond)
		}
	}
}

func shuffled[T any](r *run.Rand, in []T) []T {
	for i := len(in) - 1; i > 0; i-- {
		k := r.IntN(i + 1)
		in[i], in[k] = in[k], in[i]
	}
	return in
}

// Ready waits until every machine with an agent is READY.
func (c *Cluster) Ready(within time.Duration) time.Duration {
	c.t.Helper()
	return c.Until("all nodes are ready", within, func() string {
		for _, m := range c.With(authzv1.Role_ROLE_AGENT) {
			if wrong := c.Operator.Unready(m.ID); wrong != "" {
				return m.Name + ": " + wrong
			}
		}
		return ""
	})
}

// Until waits in virtual time until f returns an empty text, which says what is still wrong.
func (c *Cluster) Until(what string, within time.Duration, f func() string) time.Duration {
	c.t.Helper()
	began := time.Now()
	for {
		wrong := f()
		if wrong == "" {
			return time.Since(began)
		}
		if time.Since(began) > within {
			c.t.Fatalf("%s: not within %s; last seen: %s", what, within, wrong)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// MachineOf finds a host by machine id.
func (c *Cluster) MachineOf(id string) *Machine {
	for _, m := range c.Machines {
		if m.ID == id {
			return m
		}
	}
	c.t.Fatalf("no host has the machine id %q", id)
	return nil
}

// Runs tells whether a task's container runs on the machine.
func (m *Machine) Runs(taskID string) bool {
	return slices.ContainsFunc(m.Runtime.Containers(), func(c agenttest.Container) bool { return c.TaskID == taskID && c.Running })
}

// Gauge reads a metric of a process that runs on the machine.
func (m *Machine) Gauge(process, name string) (value float64, has bool) {
	reg := m.Metrics(process)
	if reg == nil || !m.Ready(process) {
		return 0, false
	}
	families, err := reg.Gather()
	if err != nil {
		return 0, false
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue(), true
		}
	}
	return 0, false
}

// Starts counts the containers that were ever started.
func (c *Cluster) Starts() int {
	n := 0
	for _, m := range c.Machines {
		n += m.Runtime.Starts()
	}
	return n
}

// NotAfter is the end of a process's certificate on disk.
func (m *Machine) NotAfter(tb testing.TB, r authzv1.Role) time.Time {
	tb.Helper()
	data, err := m.Disk.Files().Read(path.Join(m.base(r).Data, "identity", identity.CertFile))
	if err != nil {
		tb.Fatal(err)
	}
	certs, err := identity.DecodeCertificates(data)
	if err != nil {
		tb.Fatal(err)
	}
	return certs[0].NotAfter
}
