package machine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/doctor"
	"github.com/shoalproject/shoal/cli/internal/layout"
)

const (
	// startLimit bounds start and wait together.
	startLimit = 2 * time.Minute
	poll       = 200 * time.Millisecond
)

// Gateway is what Init asks of the new cluster.
type Gateway interface {
	// Ready says whether the machine is READY, and if not, what it waits for.
	Ready(ctx context.Context, machine string) (ready bool, why string, err error)
	// WorkerToken is the join token in force.
	WorkerToken(ctx context.Context) (string, error)
	// SetAvailability makes the machine active, pause or drain.
	SetAvailability(ctx context.Context, machine, availability string) error
	// Close ends the connection.
	Close() error
}

// Init is a cluster to be begun.
type Init struct {
	// Advertise is this machine's address; empty: the only one.
	Advertise string
	// Listen is the address to bind; empty: the advertised one.
	Listen string
	// Operator is the person's name in the certificate.
	Operator string
	// Availability is active, pause or drain; empty: active.
	Availability string
	// DataPathPort is the UDP port for VXLAN; 0: the default.
	DataPathPort int
	// Start says who starts the processes.
	Start Start
	// Contexts is where the operator's identity goes.
	Contexts *contexts.Store
	// Connect opens a gateway with a context's identity.
	Connect func(c contexts.Context) (Gateway, error)
}

// Initialized is a cluster that was begun.
type Initialized struct {
	// Machine is the id of this machine, Context the name of the person's new context.
	Machine, Context string
	// Token lets workers in at Address.
	Token, Address string
	// Roles are the processes of this machine.
	Roles []authzv1.Role
	// Already says that the files were there and nothing was changed: who runs the processes elsewhere calls init at each of
	// their starts. Then nothing else is told but Machine and Roles.
	Already bool
}

// bootstrapped is what `shoal-ca bootstrap` prints. It has secrets.
type bootstrapped struct {
	ClusterID    string   `json:"cluster_id"`
	MachineID    string   `json:"machine_id"`
	OperatorCert string   `json:"operator_cert"`
	OperatorKey  string   `json:"operator_key"`
	Bundle       string   `json:"bundle"`
	WorkerToken  string   `json:"worker_token"`
	Gateways     []string `json:"gateways"`
}

// Init begins a cluster on this machine.
func (m *Machine) Init(ctx context.Context, req Init) (done Initialized, err error) {
	var back undo
	defer func() { err = back.after(ctx, err, m.Tell) }()
	// Step 1: look before leaping.
	has := m.member(ctx, req.Start)
	if len(has) > 0 && req.Start == StartNone {
		return Initialized{Machine: m.ID(), Roles: has, Already: true}, m.own(has)
	}
	if err := refuseMember(has); err != nil {
		return done, err
	}
	if err := m.refuseRemains(); err != nil {
		return done, err
	}
	at, err := m.place(req.Advertise, req.Listen)
	if err != nil {
		return done, err
	}
	at.elsewhere = req.Start == StartNone
	at.dataPort = cmp.Or(req.DataPathPort, doctor.DefaultDataPort)
	if err := m.preflight(ctx, "init", layout.All(), at, req.Start); err != nil {
		return done, err
	}
	// Step 2: everything that must be there before a process starts.
	if err := m.folders(&back); err != nil {
		return done, err
	}
	m.noteID(&back)
	if err := m.beginUnfinished(req.Start, layout.All(), &back); err != nil {
		return done, err
	}
	if err := m.writeConfigs(layout.All(), at, &back); err != nil {
		return done, err
	}
	made, err := m.bootstrap(ctx, req, at, &back)
	if err != nil {
		return done, err
	}
	c, err := m.makeContext(req, made, &back)
	if err != nil {
		return done, err
	}
	if err := m.own(layout.All()); err != nil {
		return done, err
	}
	done = Initialized{
		Machine: made.MachineID, Context: c.Name, Token: made.WorkerToken, Address: net.JoinHostPort(at.advertise[0], "2377"), Roles: layout.All(),
	}
	if req.Start == StartNone {
		return done, errors.Join(req.Contexts.Use(c.Name), m.endUnfinished())
	}
	// Step 3: the processes, and the proof that they work: this machine is READY through its own gateway.
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errs.New(errs.Unavailable, "the cluster was not ready within %s", startLimit))
	defer cancel()
	m.Tell("starting the processes")
	if err := m.start(ctx, layout.All(), &back); err != nil {
		return done, err
	}
	if done.Token, err = m.proof(ctx, req, c, made.MachineID); err != nil {
		return done, err
	}
	// Step 4: the context is complete last, so that no command uses a cluster that is taken back.
	return done, req.Contexts.Use(c.Name)
}

// refuseRemains says no when a process has anything in its folder, certificate or not: a store's log is all that is left of
// some cluster, and only the person knows whether it is needed. So all that a failed init removes was made by it.
func (m *Machine) refuseRemains() error {
	var found []string
	for _, r := range layout.All() {
		names, err := m.Env.Files.List(m.folder(r))
		if err != nil {
			return errs.New(errs.Unavailable, "look into %s: %w", m.folder(r), err)
		}
		if len(remains(names)) > 0 {
			found = append(found, m.folder(r))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return errs.New(errs.Precondition, "there are remains of a cluster that this machine was in: %s; `shoal node reset` removes them for ever",
		strings.Join(found, ", "))
}

func (m *Machine) place(advertise, listen string) (place, error) {
	at := place{advertise: []string{advertise}, listen: listen, roles: layout.All()}
	var err error
	if advertise == "" {
		at.advertise[0], err = m.pick()
	}
	return at, err
}

// bootstrap lets the CA's program make keys, certificates and the store's first transaction.
func (m *Machine) bootstrap(ctx context.Context, req Init, at place, back *undo) (bootstrapped, error) {
	program, err := m.Programs.Find("shoal-ca")
	if err != nil {
		return bootstrapped{}, errs.New(errs.Precondition, "shoal-ca: %w", err)
	}
	order := map[string]any{"advertise": at.advertise, "operator": req.Operator}
	if m.Env.Host != "" {
		order["hostname"] = m.Env.Host
	}
	if m.Root != "" {
		order["root"] = m.Root
	}
	if req.DataPathPort != 0 {
		order["data_path_port"] = req.DataPathPort
	}
	data, err := yaml.Marshal(order)
	if err != nil {
		return bootstrapped{}, err
	}
	name := m.layout().Path(path.Join(layout.ConfigDir, "bootstrap.yaml"))
	// All that is in them was made from here on: refuseRemains found them empty.
	back.add("remove the processes' folders", func(context.Context) error { return m.removeFolders() })
	if err := m.Env.Files.Write(name, data, configMode); err != nil {
		return bootstrapped{}, errs.New(errs.Unavailable, "write %s: %w", name, err)
	}
	m.Tell("making the cluster's keys and certificates")
	out, err := m.Programs.Run(ctx, program, "bootstrap", "-config", name)
	if gone := m.Env.Files.Remove(name); err == nil {
		err = gone
	}
	if err != nil {
		return bootstrapped{}, fmt.Errorf("make the cluster's keys and certificates: %w", err)
	}
	var made bootstrapped
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return bootstrapped{}, errs.New(errs.Internal, "shoal-ca bootstrap printed something else than JSON: %w; are shoal and shoal-ca of one version?", err)
	}
	return made, nil
}

// makeContext writes the operator's identity folder. The context in use does not change yet.
func (m *Machine) makeContext(req Init, made bootstrapped, back *undo) (contexts.Context, error) {
	name, err := req.Contexts.Free("default")
	if err != nil {
		return contexts.Context{}, err
	}
	key, err := identity.DecodeKey([]byte(made.OperatorKey))
	if err != nil {
		return contexts.Context{}, fmt.Errorf("the operator's key: %w", err)
	}
	dir := req.Contexts.Folder(name)
	back.add("remove the context", func(context.Context) error { return m.Host.RemoveAll(dir) })
	if err := identity.Write(m.Env.Files, dir, []byte(made.OperatorCert), []byte(made.Bundle), key); err != nil {
		return contexts.Context{}, errs.New(errs.Unavailable, "write the operator's certificate: %w", err)
	}
	c := contexts.Context{Name: name, Cluster: made.ClusterID, Gateways: made.Gateways}
	return c, req.Contexts.Put(c)
}

// proof waits until this machine is READY through its own gateway and the CA shows a token.
func (m *Machine) proof(ctx context.Context, req Init, c contexts.Context, machine string) (token string, err error) {
	gateway, err := req.Connect(c)
	if err != nil {
		return "", err
	}
	defer gateway.Close()
	told := ""
	for {
		ready, why, err := gateway.Ready(ctx, machine)
		if err == nil && ready {
			break
		}
		if err != nil {
			why = err.Error()
		}
		if told != why {
			m.Tell("waiting until this machine is ready: " + why)
			told = why
		}
		if run.Sleep(ctx, poll) != nil {
			return "", fmt.Errorf("wait until this machine is ready (%s): %w", why, context.Cause(ctx))
		}
	}
	for {
		if token, err = gateway.WorkerToken(ctx); err == nil {
			break
		}
		if errs.KindOf(err) != errs.Unavailable || run.Sleep(ctx, poll) != nil {
			return "", fmt.Errorf("get the join token: %w", err)
		}
	}
	if req.Availability != "" && req.Availability != "active" {
		return token, gateway.SetAvailability(ctx, machine, req.Availability)
	}
	return token, nil
}
