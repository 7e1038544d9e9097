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
}

// Cluster is a simulated cluster.
type Cluster struct {
	W        *simhost.World
	Machines []*Machine
	// Operator is the person who began it.
	Operator *Operator

	t     *testing.T
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
	c := &Cluster{W: simhost.New(t, seed), t: t}
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
	rand := run.NewRand(c.W.Seed + uint64(i)) //nolint:gosec // an index
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

// join is `shoal join`.
func (c *Cluster) join(m *Machine) {
	c.t.Helper()
	token := c.began.WorkerToken
	if !slices.Contains(m.Roles, authzv1.Role_ROLE_AGENT) {
		token = c.began.ManagerToken
	}
	c.once(m, "join", func(ctx context.Context, env run.Env) error {
		res, err := enroll.Join(ctx, env, enroll.Request{
			Token: token, Addresses: []string{c.Machines[0].Address + ":2377"},
			Advertise: []string{m.Address}, Roles: m.Roles,
		})
		m.ID = res.MachineID
		return err
	})
	c.startAll(m)
	for _, r := range m.Roles {
		m.Await(c.t, identity.RoleName(r), time.Minute)
	}
}

// once runs a command on a host and waits for it.
func (c *Cluster) once(m *Machine, name string, f simhost.Run) {
	c.t.Helper()
	done := make(chan error, 1)
	m.AutoRestart(0)
	err := m.Start(name, func(ctx context.Context, env run.Env) error {
		err := f(ctx, env)
		done <- err
		return err
	})
	if err == nil {
		err = <-done
	}
	m.AutoRestart(restartAfter)
	if err != nil {
		c.t.Fatalf("%s on %s: %v", name, m.Name, err)
	}
}

func (c *Cluster) startAll(m *Machine) {
	c.t.Helper()
	for _, r := range m.Roles {
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
		cfg.Base = base
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

// PowerOff is a power cut: everything on the host dies, containers too.
func (m *Machine) PowerOff() {
	m.Crash()
	m.Runtime.PowerOff()
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

// Starts counts the containers that were ever started.
func (c *Cluster) Starts() int {
	n := 0
	for _, m := range c.Machines {
		n += m.Runtime.Starts()
	}
	return n
}
