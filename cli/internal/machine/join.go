package machine

import (
	"context"
	"crypto/x509"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

const (
	maxTries = 5
	again    = 1200 * time.Millisecond
)

// Join is a cluster to be joined, or roles to be added to a machine that is in it.
type Join struct {
	// Token as pasted.
	Token string
	// Address is a manager's, as host[:port].
	Address string
	// Advertise is this machine's address; empty: the one that its processes have, or the one on the way to Address.
	Advertise string
	// Listen is the address to bind; empty: the advertised one.
	Listen string
	// Roles are the processes wanted; empty: all that the token allows.
	Roles []authzv1.Role
	// Learner says that the store copies and does not vote.
	Learner bool
	// Availability is active, pause or drain; empty: active. Of a machine that the cluster knows it changes nothing.
	Availability string
	// Start says who starts the processes.
	Start Start
}

// Joined is a join that is done.
type Joined struct {
	// Machine is this machine's id.
	Machine string
	// Manager says that it runs a store.
	Manager bool
	// Roles are the processes that it got now, Had those that it had before. Where the processes are run elsewhere there may
	// be none to get: who runs them calls join at each of their starts.
	Roles, Had []authzv1.Role
}

// Join makes this machine a member of a cluster, or adds processes to one.
//
// Keys and certificates stay when a later step fails: the CA knows them by then, and a second try proves itself with them.
// Without its units the machine is in no cluster.
func (m *Machine) Join(ctx context.Context, req Join) (done Joined, err error) {
	var back undo
	defer func() { err = back.after(ctx, err, m.Tell) }()
	// Step 1: look before leaping.
	has := m.member(ctx, req.Start)
	roles, err := m.wanted(req, has)
	if err != nil {
		return done, err
	}
	if len(has) > 0 && len(roles) == 0 {
		return Joined{Machine: m.ID(), Had: has}, m.own(has)
	}
	address := req.Address
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), "2377")
	}
	at, err := m.placeTowards(ctx, req, address, has)
	if err != nil {
		return done, err
	}
	tries := [][]authzv1.Role{roles}
	if len(roles) == 0 { // the token decides, and only the CA can read that in it
		tries = [][]authzv1.Role{layout.All(), layout.Workers()}
		if req.Learner { // a worker has no store
			tries = tries[:1]
		}
	}
	least := tries[len(tries)-1]
	at.roles = append(slices.Clone(has), least...)
	if err := m.preflight(ctx, "join", least, at, req.Start); err != nil {
		return done, err
	}
	// Step 2: certificates.
	if err := m.folders(&back); err != nil {
		return done, err
	}
	m.noteID(&back)
	if err := m.beginUnfinished(req.Start, tries[0], &back); err != nil {
		return done, err
	}
	m.Tell("asking " + address + " for certificates")
	roles, result, err := m.enroll(ctx, req, address, at, tries)
	if err != nil {
		return done, err
	}
	done = Joined{Machine: result.MachineID, Manager: slices.Contains(roles, authzv1.Role_ROLE_STORE), Roles: roles, Had: has}
	at.roles = append(slices.Clone(has), roles...)
	if len(roles) > len(least) {
		if err := m.preflight(ctx, "join as a manager", roles, at, req.Start); err != nil {
			return done, err
		}
	}
	if err := m.checkWays(ctx, "join", roles, req.Start); err != nil {
		return done, err
	}
	// Step 3: the rest of the files.
	if err := m.writeConfigs(roles, at, &back); err != nil {
		return done, err
	}
	if err := m.own(roles); err != nil {
		return done, err
	}
	if req.Start == StartNone {
		if _, err := m.reshape(has, at.roles, &back); err != nil {
			return done, err
		}
		return done, m.endUnfinished()
	}
	// Step 4: the processes. A unit that has started is ready: a store votes, an agent is in session.
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errs.New(errs.Unavailable, "the processes were not ready within %s", startLimit))
	defer cancel()
	if err := m.reshapeAndRestart(ctx, has, at.roles, &back); err != nil {
		return done, err
	}
	m.Tell("starting the processes")
	return done, m.startJoined(ctx, roles, req.Learner, &back)
}

// wanted are the roles to ask for; none: all that the token allows. It refuses what can't be.
func (m *Machine) wanted(req Join, has []authzv1.Role) ([]authzv1.Role, error) {
	if len(req.Roles) == 0 && req.Start != StartNone {
		// A power cut while the units were being enabled leaves some of them off: joining again adds those.
		req.Roles = layout.Without(m.certified(), has)
		if err := refuseMember(has); err != nil && len(req.Roles) == 0 {
			return nil, err
		}
		if len(has) == 0 {
			req.Roles = nil // the token decides
		}
	}
	token, err := enroll.ParseToken(req.Token)
	if err != nil {
		return nil, err
	}
	if err := m.sameCluster(token); err != nil {
		return nil, err
	}
	roles := layout.Without(layout.Sorted(req.Roles), has)
	if len(req.Roles) > 0 && len(roles) == 0 && req.Start != StartNone {
		return nil, errs.New(errs.Precondition, "this machine is in the cluster with %s already; there is nothing to add", layout.Names(layout.Sorted(req.Roles)))
	}
	if req.Learner && !slices.Contains(roles, authzv1.Role_ROLE_STORE) && len(req.Roles) > 0 {
		return nil, errs.New(errs.Invalid, "--learner is for a store, and --roles names none that this machine would get")
	}
	return roles, nil
}

// sameCluster refuses a machine with certificates of another cluster, whatever the roles.
func (m *Machine) sameCluster(token enroll.Token) error {
	for _, r := range m.certified() {
		name := path.Join(m.layout().Identity(r), identity.BundleFile)
		data, err := m.Env.Files.Read(name)
		if err != nil {
			continue // enroll tells it, if it matters
		}
		roots, err := identity.DecodeCertificates(data)
		if err == nil && !slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return token.Matches(c.Raw) }) {
			return errs.New(errs.Precondition, "this machine belongs to another cluster: the root certificate in %s is not the one in the token; "+
				"run `shoal leave` (or, if that cluster is gone, `shoal node reset`) first", name)
		}
	}
	return nil
}

// noteID lets a machine id that this join makes go with it, unless keys stay that were certified for it.
func (m *Machine) noteID(back *undo) {
	if m.ID() != "" {
		return
	}
	back.add("remove the machine id", func(context.Context) error {
		for _, r := range layout.All() {
			if m.exists(m.folder(r)) {
				return nil
			}
		}
		return m.Env.Files.Remove(m.layout().MachineID())
	})
}

// enroll asks for the roles; a CA that reads a worker's token refuses a manager's, and is asked for less.
func (m *Machine) enroll(ctx context.Context, req Join, address string, at place, tries [][]authzv1.Role) ([]authzv1.Role, enroll.Result, error) {
	order := enroll.Request{
		Token: req.Token, Addresses: []string{address}, Advertise: at.advertise, Root: m.layout().Path(layout.DataDir),
		Availability: typesv1.Availability(typesv1.Availability_value["AVAILABILITY_"+strings.ToUpper(req.Availability)]),
	}
	for i, roles := range tries {
		order.Roles = roles
		result, err := m.ask(ctx, order)
		if err == nil {
			return roles, result, nil
		}
		if errs.KindOf(err) != errs.Denied || i == len(tries)-1 {
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

func (m *Machine) placeTowards(ctx context.Context, req Join, address string, has []authzv1.Role) (place, error) {
	at := place{listen: req.Listen, learner: req.Learner, elsewhere: req.Start == StartNone}
	if req.Advertise != "" {
		at.advertise = []string{req.Advertise}
		return at, nil
	}
	// A machine has one place for all its processes.
	for _, r := range has {
		if at.advertise = m.advertised(r); len(at.advertise) > 0 {
			return at, nil
		}
	}
	own, err := m.Host.Source(ctx, address)
	if err != nil {
		return place{}, errs.New(errs.Unavailable, "there is no way from this machine to %s: %w; check the address, or name this machine's own with --advertise-addr", address, err)
	}
	at.advertise = []string{own.Unmap().String()}
	return at, nil
}

func (m *Machine) reshapeAndRestart(ctx context.Context, has, all []authzv1.Role, back *undo) error {
	var changed []authzv1.Role
	back.add("restart the processes with their former configuration", func(ctx context.Context) error { return m.restart(ctx, changed) })
	changed, err := m.reshape(has, all, back)
	if err != nil {
		return err
	}
	return m.restart(ctx, changed)
}
