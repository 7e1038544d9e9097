// Package apply brings a machine to what its model says: the kernel's tables and the forwarder's ports.
//
// It owns the model in force, the file of last known tables, and the version that may be reported: one whose tables and
// ports are in force. It tries again on a clock and on notice, and what it cannot do it says in the process's health. It
// never removes anything before it has a model, and nothing when it stops. Set and Applied are safe for concurrent use; the
// rest belongs to Run.
package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

const (
	// period is how often what is really in the kernel is looked at.
	period = 10 * time.Second
	// portsTold is how many ports that could not be opened are told by name. Who has one is looked up in the machine's whole table of
	// sockets.
	portsTold = 16
	// retry is the wait after tables that could not be put in force.
	retry = time.Second
	// heavySteps are so many, or elements that were read, that what they were made of is to be given back.
	heavySteps = 10_000
	// defaultMTU is Ethernet's.
	defaultMTU = 1500
)

// Forwarder is what puts ports in force.
type Forwarder interface {
	// Apply calls opening before it listens on ports that were not open.
	Apply(ctx context.Context, ports []mesh.Port, peers map[string][]string, opening func([]mesh.Listener) error) ([]forward.Unbound, error)
}

// Part is something else of the machine that follows from the model.
type Part interface {
	// Apply puts a model in force. With an error the version is not reported, and it is tried again.
	Apply(ctx context.Context, m *mesh.Model) error
	// Forget clears away what a change has left and nobody waits for. It comes when the version is reported.
	Forget() error
}

// Ring has the machine's keys for encrypted networks.
type Ring interface {
	// Plan says how this machine reaches the others encrypted.
	Plan(m *mesh.Model, self mesh.Self) mesh.Seal
	// Configure has the devices use their keys. It comes after the tables, which have the devices' links. By remembered tables it leaves
	// those as they are that are in use.
	Configure(remembered bool)
}

// Health is told what waits, and why.
type Health interface {
	Set(part string, ok bool, why string)
}

// Loop is one machine's.
type Loop struct {
	env       run.Env
	node      string
	advertise []string
	file      string
	tables    tables.Tables
	forwarder Forwarder
	parts     []Part
	health    Health
	ring      Ring          // nil: nothing encrypts
	wake      chan struct{} // has a token when there is something to do
	pulse     *run.Pulse

	state // Run's alone

	mu    sync.Mutex // guards all below
	model *mesh.Model
	// remembered says that the model is that of the file.
	remembered bool
	applied    *typesv1.Version
	changed    chan struct{}          // closed when applied is replaced
	look       bool                   // the kernel must be read, whatever the model says
	withdrawn  map[string]time.Time   // when, by task
	silent     map[string]bool        // machines to which no new connection is led
	view       *mesh.Model            // the model without them; nil: to be made
	counted    map[kernel.Slot]string // what the kernel counts, for which service
	shown      *mesh.Published        // what is in force
}

// state is what the loop has done so far.
type state struct {
	userSpace, transparent bool
	ground                 mesh.Self              // what the machine looks like, but for what changes with the model
	numbers                map[string]uint16      // of the peers; nil until the kernel was read
	held                   map[mesh.Listener]bool // ports that another process has
	published              *mesh.Published
	settled                kernel.Kernel // what the kernel was brought to last
	heavy                  bool          // that was much
	recalls                bool          // the tables at work are those of the file
}

// New makes a loop. File is where the last known tables are kept. The parts are put in force in their order, before the forwarder.
func New(env run.Env, node string, advertise []string, file string, t tables.Tables, f Forwarder, h Health, parts ...Part) *Loop {
	return &Loop{
		env: env, node: node, advertise: advertise, file: file, tables: t, forwarder: f, parts: parts, health: h,
		wake: make(chan struct{}, 1), changed: make(chan struct{}), pulse: run.NewPulse(),
		look: true, withdrawn: map[string]time.Time{},
	}
}

// UserSpace has the forwarder carry all published ports, because the kernel cannot. Call it before Run.
func (l *Loop) UserSpace() { l.userSpace = true }

// Transparent has the kernel lead to the forwarder what containers answer to its clients' addresses. Call it before Run.
func (l *Loop) Transparent() { l.transparent = true }

// Seal has networks be encrypted by the keys of a ring. Call it before Run.
func (l *Loop) Seal(r Ring) { l.ring = r }

// Again has the loop look whether another way is better by now.
func (l *Loop) Again() { l.poke() }

// Take builds the next model from a response, and has it put in force soon. Several that come fast are put in force as one.
func (l *Loop) Take(r *dispatcherv1.EndpointsResponse) error {
	l.mu.Lock()
	next, err := l.model.Apply(r)
	if err == nil {
		l.model, l.view, l.remembered = next, nil, false
	}
	l.mu.Unlock()
	if err == nil {
		l.poke()
	}
	return err
}

// Applied is the last version that is in force, nil before the first, and a channel that is closed at the next.
func (l *Loop) Applied() (*typesv1.Version, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.applied, l.changed
}

// Counted leads from what the kernel counts to the ids of services.
func (l *Loop) Counted() map[kernel.Slot]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counted
}

// Load takes the last known tables from the file, so that a machine whose control plane is away serves after a restart. An
// unreadable file is told and does not stop anything: the next stream brings the whole.
func (l *Loop) Load() {
	data, err := l.env.Files.Read(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	r := &dispatcherv1.EndpointsResponse{}
	if err == nil {
		err = proto.Unmarshal(data, r)
	}
	if err == nil {
		err = l.Take(r)
	}
	if err != nil {
		l.env.Log.Warn("last known tables not read, waiting for the dispatcher", "file", l.file, "error", err)
		return
	}
	l.mu.Lock()
	l.remembered = true
	l.mu.Unlock()
	l.env.Log.Info("last known tables taken", "version", mesh.Text(r.GetVersion()))
}

// Alive waits until the loop of Run comes round.
func (l *Loop) Alive(ctx context.Context) error { return l.pulse.Ask(ctx) }

// Run works until ctx ends, and leaves everything in place.
func (l *Loop) Run(ctx context.Context) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	saver := &saver{files: l.env.Files, path: l.file}
	defer func() { l.report(saver.flush()) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.pulse.C():
			continue
		case <-l.wake:
		case <-again.C:
			l.suspect()
		case <-tick.C:
			l.suspect()
			l.report(saver.flush())
		}
		m := l.current()
		if m == nil {
			continue
		}
		l.report(saver.before(l.Told()))
		if !l.enforce(ctx, m) {
			again.Reset(retry)
			continue
		}
		l.done(m) // what follows is of no concern to those who wait for the version
		l.forget()
		l.report(saver.take(l.Told()))
		if l.heavy {
			l.heavy = false
			debug.FreeOSMemory() // what was needed would stay until as much has been allocated again, which may be long
		}
	}
}

// forget clears away. What fails is tried again with the next change, and at the latest with the next look. By the tables of the file
// nobody looks for connections to tasks that he does not know: the tasks may have come since it was written.
func (l *Loop) forget() {
	if l.recalls {
		return
	}
	faults := []error{l.tables.Forget(l.settled.Rules.Networks)}
	for _, p := range l.parts {
		faults = append(faults, p.Forget())
	}
	if err := errors.Join(faults...); err != nil {
		l.env.Log.Warn("connections to tasks that have gone not forgotten, will retry", "error", err)
	}
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// suspect has the kernel read the next time, even if the same is wanted of it as before.
func (l *Loop) suspect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = true
}

// looks says whether the kernel has to be read, and takes it that it will be.
func (l *Loop) looks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	look := l.look
	l.look = false
	return look
}

func (l *Loop) done(m *mesh.Model) {
	counted := l.published.Counted()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counted, l.shown = counted, l.published
	if proto.Equal(l.applied, m.Version()) {
		return
	}
	l.applied = m.Version()
	close(l.changed)
	l.changed = make(chan struct{})
}

// report is for what concerns only the next restart.
func (l *Loop) report(err error) {
	if err != nil {
		l.env.Log.Warn("last known tables not kept, will retry", "file", l.file, "error", err)
	}
}

// enforce puts a model in force. The forwarder first: it takes tasks out that are about to stop, and needs no table. It is
// false if the tables are not as they should be. A port that cannot be bound counts as in force: nothing of ours answers
// on it, so nothing of ours can send to a task that has left.
func (l *Loop) enforce(ctx context.Context, m *mesh.Model) bool {
	var failed []error
	for _, p := range l.parts {
		failed = append(failed, p.Apply(ctx, m))
	}
	look := l.looks()
	self, err := l.self(ctx, m, look)
	if err == nil {
		err = l.connect(ctx, m, self, look)
	}
	err = errors.Join(append(failed, err)...)
	if err != nil && ctx.Err() == nil {
		l.suspect() // what has been done of it is not known
		l.env.Log.Warn("tables not in force, will retry", "version", mesh.Text(m.Version()), "error", err)
		l.health.Set("tables", false, err.Error())
		return false
	}
	if err == nil {
		l.health.Set("tables", true, "")
	}
	return err == nil
}

// self is what the machine knows of itself. Its links are looked at when the kernel is.
func (l *Loop) self(ctx context.Context, m *mesh.Model, look bool) (mesh.Self, error) {
	tunnel := m.Tunnel(l.node, l.advertise)
	if look || l.ground.Tunnel != tunnel {
		l.ground = mesh.Self{Node: l.node, Tunnel: tunnel, MTU: defaultMTU, UserSpace: l.userSpace, Transparent: l.transparent}
		var err error
		if l.ground.Local, err = l.tables.Addresses(ctx); err != nil {
			return mesh.Self{}, fmt.Errorf("list the machine's addresses: %w", err)
		}
		if mtu, err := l.tables.Underlay(ctx, tunnel); tunnel.IsValid() && err == nil {
			l.ground.MTU = mtu
		} else if tunnel.IsValid() {
			// A machine behind a translated address has it on no link: the common MTU is then the best guess.
			l.env.Log.Debug("MTU of the underlay not known, taking the common one", "address", tunnel, "error", err)
		}
	}
	if l.numbers == nil {
		have, err := l.tables.Read(ctx, nil)
		if err != nil {
			return mesh.Self{}, fmt.Errorf("read the kernel: %w", err)
		}
		l.numbers = have.Numbers()
	}
	self := l.ground
	l.numbers = m.Number(self, l.numbers)
	self.Numbers, self.Held, self.Withdrawn = l.numbers, l.held, l.out(m)
	self.Seal = mesh.Seal{Why: "it has no kernel of its own"}
	if l.ring != nil {
		self.Seal = l.ring.Plan(m, self)
	}
	return self, nil
}

// connect opens the ports and programs the kernel.
func (l *Loop) connect(ctx context.Context, m *mesh.Model, self mesh.Self, look bool) error {
	published, faults := m.Publish(self, l.published)
	if faults != nil {
		l.env.Log.Warn("part of the published ports left out", "error", faults)
	}
	listened, unserved := byForwarder(published.Ports())
	c := &course{model: m, self: self, published: published, look: look}
	unbound, err := l.forwarder.Apply(ctx, listened, m.Peers(l.node), func(opening []mesh.Listener) error {
		return l.announce(ctx, c, opening)
	})
	if err != nil {
		return fmt.Errorf("announce ports: %w", err)
	}
	l.tellPorts(slices.Concat(unbound, unserved))
	// A port that is another process's here stays that one's: the kernel must not lead its clients away.
	if held := heldOf(unbound); !maps.Equal(held, l.held) {
		l.held, c.self.Held = held, held
		c.published, _ = m.Publish(c.self, published) // its faults are told
		c.planned = false
	}
	l.published = c.published
	if err := l.program(ctx, c); err != nil {
		return err
	}
	if l.ring != nil {
		l.ring.Configure(l.recalls)
	}
	return nil
}

// byForwarder are the ports that the forwarder listens on, and those that only the kernel could have served.
func byForwarder(all []mesh.Port) (listened []mesh.Port, unserved []forward.Unbound) {
	if !slices.ContainsFunc(all, func(p mesh.Port) bool { return p.Network == "sctp" }) {
		return all, nil // as nearly always; they may be many
	}
	for _, p := range all {
		switch {
		case p.Network != "sctp":
			listened = append(listened, p)
		case p.UserSpace:
			unserved = append(unserved, forward.Unbound{
				Listener: p.Listener, Err: errs.New(errs.Precondition, "SCTP is served by the kernel alone, and this machine's does not"),
			})
		}
	}
	return listened, unserved
}

func heldOf(unbound []forward.Unbound) map[mesh.Listener]bool {
	out := map[mesh.Listener]bool{}
	for _, u := range unbound {
		out[u.Listener] = true
	}
	return out
}

func (l *Loop) tellPorts(unbound []forward.Unbound) {
	if len(unbound) == 0 {
		l.health.Set("ports", true, "")
		return
	}
	unbound = slices.SortedFunc(slices.Values(unbound), func(a, b forward.Unbound) int { return strings.Compare(a.Listener.String(), b.Listener.String()) })
	var words []string
	for _, u := range unbound[:min(len(unbound), portsTold)] {
		text := fmt.Sprintf("%s: %s", u.Listener, u.Err)
		if holder := l.tables.Holder(u.Listener); holder != "" {
			text = fmt.Sprintf("%s is held by %s; stop it, or publish another port", u.Listener, holder)
		}
		words = append(words, text)
	}
	if more := len(unbound) - len(words); more > 0 {
		words = append(words, fmt.Sprintf("and %d more ports", more))
	}
	l.health.Set("ports", false, strings.Join(words, ", "))
}
