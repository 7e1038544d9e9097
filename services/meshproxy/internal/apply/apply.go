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
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

const (
	// period is how often what is really in the kernel is looked at.
	period = 10 * time.Second
	// retry is the wait after tables that could not be put in force.
	retry = time.Second
	// defaultMTU is Ethernet's.
	defaultMTU = 1500
)

// Forwarder is what puts ports in force.
type Forwarder interface {
	Apply(ctx context.Context, ports []mesh.Port, peers map[string][]string) []forward.Unbound
}

// Part is something else of the machine that follows from the model.
type Part interface {
	// Apply puts a model in force. With an error the version is not reported, and it is tried again.
	Apply(ctx context.Context, m *mesh.Model) error
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
	wake      chan struct{} // has a token when there is something to do
	pulse     *run.Pulse

	mu      sync.Mutex // guards all below
	model   *mesh.Model
	applied *typesv1.Version
	changed chan struct{} // closed when applied is replaced
	look    bool          // the kernel must be read, whatever the model says
	settled mesh.Kernel   // what the kernel was brought to last
}

// New makes a loop. File is where the last known tables are kept. The parts are put in force in their order, before the forwarder.
func New(env run.Env, node string, advertise []string, file string, t tables.Tables, f Forwarder, h Health, parts ...Part) *Loop {
	return &Loop{
		env: env, node: node, advertise: advertise, file: file, tables: t, forwarder: f, parts: parts, health: h,
		wake: make(chan struct{}, 1), changed: make(chan struct{}), pulse: run.NewPulse(),
	}
}

// Take builds the next model from a response, and has it put in force soon. Several that come fast are put in force as one.
func (l *Loop) Take(r *dispatcherv1.EndpointsResponse) error {
	l.mu.Lock()
	next, err := l.model.Apply(r)
	if err == nil {
		l.model = next
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
		if !l.enforce(ctx, m) {
			again.Reset(retry)
			continue
		}
		l.report(saver.take(m))
		l.done(m)
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

// must says whether the kernel has to be read for this, and takes it that it will be.
func (l *Loop) must(want mesh.Kernel) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.look && want.Equal(l.settled) {
		return false
	}
	l.look, l.settled = false, mesh.Kernel{}
	return true
}

func (l *Loop) settle(k mesh.Kernel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settled = k
}

func (l *Loop) current() *mesh.Model {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model
}

func (l *Loop) done(m *mesh.Model) {
	l.mu.Lock()
	defer l.mu.Unlock()
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
	ports, err := m.Ports()
	if err != nil {
		l.env.Log.Warn("part of the published ports left out", "error", err)
	}
	l.tellPorts(l.forwarder.Apply(ctx, ports, m.Peers(l.node)))
	err = errors.Join(append(failed, l.program(ctx, m))...)
	if err != nil && ctx.Err() == nil {
		l.env.Log.Warn("tables not in force, will retry", "version", mesh.Text(m.Version()), "error", err)
		l.health.Set("tables", false, err.Error())
		return false
	}
	if err == nil {
		l.health.Set("tables", true, "")
	}
	return err == nil
}

func (l *Loop) program(ctx context.Context, m *mesh.Model) error {
	self := mesh.Self{Node: l.node, Tunnel: m.Tunnel(l.node, l.advertise), MTU: defaultMTU}
	if self.Tunnel.IsValid() {
		mtu, err := l.tables.Underlay(ctx, self.Tunnel)
		if err != nil {
			// A machine behind a translated address has it on no link: the common MTU is then the best guess.
			l.env.Log.Debug("MTU of the underlay not known, taking the common one", "address", self.Tunnel, "error", err)
		} else {
			self.MTU = mtu
		}
	}
	want, err := m.Desired(self)
	if err != nil {
		l.env.Log.Warn("part of the tables left out", "error", err)
	}
	if !l.must(want) {
		return nil
	}
	have, err := l.tables.Read(ctx, slices.Collect(maps.Keys(want.Settings)))
	if err != nil {
		return fmt.Errorf("read the kernel: %w", err)
	}
	changes := mesh.Diff(want, have)
	if err := l.tables.Apply(ctx, changes); err != nil {
		return err
	}
	l.settle(want)
	if len(changes) == 0 {
		return nil
	}
	l.env.Log.Info("tables changed", "version", mesh.Text(m.Version()), "steps", len(changes), "first", changes[0].String())
	return nil
}

func (l *Loop) tellPorts(unbound []forward.Unbound) {
	if len(unbound) == 0 {
		l.health.Set("ports", true, "")
		return
	}
	var words []string
	for _, u := range unbound {
		text := fmt.Sprintf("%s: %s", u.Listener, u.Err)
		if holder := l.tables.Holder(u.Listener); holder != "" {
			text = fmt.Sprintf("%s is held by %s; stop it, or publish another port", u.Listener, holder)
		}
		words = append(words, text)
	}
	slices.Sort(words)
	l.health.Set("ports", false, strings.Join(words, ", "))
}
