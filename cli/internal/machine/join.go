package machine

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	maxTries = 5
	again    = 1200 * time.Millisecond
)

// Join is a cluster to be joined.
type Join struct {
	// Token as pasted.
	Token string
	// Address is a manager's, as host[:port].
	Address string
	// Advertise is this machine's address; empty: the one on the way to Address.
	Advertise string
	// Listen is the address to bind; empty: the advertised one.
	Listen string
}

// Joined is a join that is done.
type Joined struct {
	// Machine is this machine's id.
	Machine string
	// Manager says that it runs the control processes, too.
	Manager bool
}

// Join makes this machine a member of a cluster.
//
// Keys and certificates stay when a later step fails: the CA knows them by then, and a second try proves itself with them.
// Without its units the machine is in no cluster.
func (m *Machine) Join(ctx context.Context, req Join) (done Joined, err error) {
	var back undo
	defer func() { err = back.after(ctx, err, m.Tell) }()
	// Step 1: look before leaping.
	if err := m.refuseMember(ctx); err != nil {
		return done, err
	}
	if _, err := enroll.ParseToken(req.Token); err != nil {
		return done, err
	}
	address := req.Address
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "2377")
	}
	at, err := m.placeTowards(ctx, req, address)
	if err != nil {
		return done, err
	}
	if err := m.preflight(ctx, "join", workerRoles(), at); err != nil {
		return done, err
	}
	// Step 2: certificates. The token decides what this machine will be, and only the CA can read that in it.
	m.Tell("asking " + address + " for certificates")
	roles, result, err := m.enroll(ctx, req, address, at)
	if err != nil {
		return done, err
	}
	done = Joined{Machine: result.MachineID, Manager: slices.Contains(roles, authzv1.Role_ROLE_STORE)}
	if done.Manager {
		if err := m.preflight(ctx, "join as a manager", managerRoles(), at); err != nil {
			return done, err
		}
	}
	// Step 3: the rest of the files, then the processes. A unit that has started is ready: a store votes, an agent is in
	// session.
	if err := m.writeConfigs(roles, at, &back); err != nil {
		return done, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errs.New(errs.Unavailable, "the processes were not ready within %s", startLimit))
	defer cancel()
	m.Tell("starting the processes")
	return done, m.start(ctx, roles, &back)
}

// enroll asks for everything that a manager has; a CA that reads a worker's token refuses that, and is asked for less.
func (m *Machine) enroll(ctx context.Context, req Join, address string, at place) ([]authzv1.Role, enroll.Result, error) {
	order := enroll.Request{
		Token: req.Token, Addresses: []string{address}, Advertise: at.advertise, Root: m.path(dataDir),
	}
	for _, roles := range [][]authzv1.Role{managerRoles(), workerRoles()} {
		order.Roles = roles
		result, err := m.ask(ctx, order)
		if err == nil {
			return roles, result, nil
		}
		if errs.KindOf(err) != errs.Denied || len(roles) == len(workerRoles()) {
			return nil, enroll.Result{}, err
		}
	}
	return nil, enroll.Result{}, errs.New(errs.Internal, "join: no roles to ask for")
}

// ask asks again when a CA says that this was too soon: it lets few tries a second through from one address.
func (m *Machine) ask(ctx context.Context, order enroll.Request) (enroll.Result, error) {
	for try := 0; ; try++ {
		result, err := enroll.Join(ctx, m.Env, order)
		if errs.KindOf(err) != errs.Exhausted || try == maxTries || run.Sleep(ctx, again) != nil {
			return result, err
		}
		m.Tell("waiting: the CA takes one try a second")
	}
}

func (m *Machine) placeTowards(ctx context.Context, req Join, address string) (place, error) {
	if req.Advertise != "" {
		return place{advertise: []string{req.Advertise}, listen: req.Listen}, nil
	}
	own, err := m.Host.Source(ctx, address)
	if err != nil {
		return place{}, errs.New(errs.Unavailable, "there is no way from this machine to %s: %w; check the address, or name this machine's own with --advertise-addr", address, err)
	}
	return place{advertise: []string{own.Unmap().String()}, listen: req.Listen}, nil
}
