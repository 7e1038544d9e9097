// Package forward is the user-space mesh: it listens on every published port and passes each connection to one task in
// turn, on this machine directly, on another through that machine's meshproxy over mutual TLS.
//
// It owns listeners, connections and the warm links between meshproxies. It never decides who stands behind a port (that is
// mesh.Model's), and as a receiver it dials nothing but tasks that its own tables place on this machine. Established
// connections outlive every change of the tables. A Forwarder is safe for concurrent use; Apply has one caller.
package forward

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/relay"
)

// Limits of a machine's forwarding. A try is one task; a connection tries the next within the total.
const (
	portPlaces     = 4096
	silentTime     = 30 * time.Second
	inboundStreams = 8192
	tryLimit       = time.Second
	remoteTryLimit = 1500 * time.Millisecond // the receiver has a try of its own within it
	totalLimit     = 5 * time.Second
	// restTime keeps a task or machine that did not answer last in turn, so that few connections wait for it.
	restTime = 2 * time.Second
	// withdrawTime bounds how long a withdrawn task stays out while the stream still has it: the control plane may be away,
	// and the task may have come back.
	withdrawTime = 10 * time.Second
	udpIdle      = time.Minute
	acceptWait   = 50 * time.Millisecond
	// lastMoment is how long connections go on while the process stops. New ones wait for the next process meanwhile.
	lastMoment = time.Second
	sweepEvery = 10 * time.Second
)

// DialPeer opens a connection to the meshproxy of a machine at an address, and has made sure that it is that machine's.
type DialPeer func(ctx context.Context, node, address string) (net.Conn, error)

// Forwarder is one machine's.
type Forwarder struct {
	env     run.Env
	self    string
	tasks   *run.Spawner
	links   *pool
	relay   *relay.Relay
	buffers *sync.Pool
	rooms   rooms
	inbound chan struct{} // one token a stream from a peer
	meter   *meter
	counts  counts
	bounds  bounds
	book    book
	lack    run.Lacks
	// transparent says that tasks can be spoken to with their clients' addresses.
	transparent bool

	mu        sync.Mutex // guards all below
	ports     map[mesh.Listener]*port
	former    map[mesh.Listener]*port // closed, with clients that are still there
	local     map[target]struct{}
	withdrawn map[string]time.Time // when, by task
	resting   map[string]time.Time // until when, by task or machine
}

// target is what a peer may ask this machine for.
type target struct {
	network, task string
	address       netip.AddrPort
}

// Unbound is a port that this machine cannot listen on.
type Unbound struct {
	Listener mesh.Listener
	Err      error
}

// New makes a forwarder without ports. Self is the machine's id. Trust is closed at the next change of whom to trust: no link
// outlives it for another stream, since its peer may have lost its rights.
func New(env run.Env, self string, dial DialPeer, trust func() <-chan struct{}) *Forwarder {
	m := newMeter(env)
	return &Forwarder{
		env: env, self: self, tasks: run.NewSpawner(env.Log), links: newPool(dial, trust, m), meter: m,
		buffers: &sync.Pool{New: func() any { return new([bufferSize]byte) }},
		relay:   relay.New(),
		bounds:  bounds{portPlaces, silentTime, backlogBytes, lastMoment},
		inbound: make(chan struct{}, inboundStreams),
		ports:   map[mesh.Listener]*port{}, former: map[mesh.Listener]*port{}, local: map[target]struct{}{},
		withdrawn: map[string]time.Time{}, resting: map[string]time.Time{},
	}
}

// Transparent has tasks see their clients' own addresses: the kernel leads to this process what they answer. Call it before
// Run.
func (f *Forwarder) Transparent() { f.transparent = true }

// Run closes what has been idle for long, until ctx ends; then it closes the links and waits for the connections, which
// end with the context that Apply was given.
func (f *Forwarder) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	carried := run.Async(life, func(ctx context.Context) (struct{}, error) { return struct{}{}, f.relay.Run(ctx, f.env.Log) })
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f.tasks.Run(ctx) })
	for {
		select {
		case r := <-done:
			f.links.closeAll()
			end() // it carried the connections of those that have ended
			return errors.Join(r.Err, (<-carried).Err)
		case r := <-carried:
			return r.Err
		case <-tick.C:
			f.relay.Sweep()
			f.links.sweep(f.relay.Warm())
		}
	}
}

// Apply puts these ports in force: backends are swapped, listeners opened and closed. It returns the ports that could not
// be opened; they concern no other, and the next Apply tries again. What it opens lives until ctx ends. Opening is called before any is
// listened on that was not; with an error from it none of these is.
func (f *Forwarder) Apply(ctx context.Context, ports []mesh.Port, peers map[string][]string, opening func([]mesh.Listener) error) ([]Unbound, error) {
	f.links.setPeers(peers)
	missing, gone := f.swap(ports)
	for _, p := range gone {
		p.close()
		for _, a := range addressesOf(p.bind, p.Port) {
			f.report(run.ForgetSocket(f.env.Net, p.Network, a))
		}
		f.env.Log.Info("port closed", "port", p.Listener.String(), "service", p.Service)
	}
	if err := announce(missing, opening); err != nil {
		return nil, err
	}
	var unbound []Unbound
	for _, want := range missing {
		p, err := f.open(ctx, want)
		if err != nil {
			unbound = append(unbound, Unbound{want.Listener, err})
			continue
		}
		f.mu.Lock()
		f.ports[want.Listener] = p
		delete(f.former, want.Listener)
		f.mu.Unlock()
		f.env.Log.Info("port open", "port", want.Listener.String(), "service", want.Service)
	}
	f.report(run.DropUnclaimed(f.env.Net)) // ports that were closed while no process ran
	f.meter.ports.WithLabelValues("open").Set(float64(len(ports) - len(unbound)))
	f.meter.ports.WithLabelValues("unbound").Set(float64(len(unbound)))
	return unbound, nil
}

func announce(missing []mesh.Port, opening func([]mesh.Listener) error) error {
	if len(missing) == 0 {
		return nil
	}
	listeners := make([]mesh.Listener, 0, len(missing))
	for _, p := range missing {
		listeners = append(listeners, p.Listener)
	}
	return opening(listeners)
}

// report is for what concerns only ports that are closed already.
func (f *Forwarder) report(err error) {
	if err != nil {
		f.env.Log.Warn("closed port not given up, clients wait on it until the next restart", "error", err)
	}
}

// swap changes what is open already, and says what is to be opened and closed.
func (f *Forwarder) swap(ports []mesh.Port) (missing []mesh.Port, gone []*port) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgetWithdrawn(ports)
	clear(f.local)
	wanted := map[mesh.Listener]bool{}
	for _, p := range ports {
		if p.Refused {
			continue
		}
		wanted[p.Listener] = true
		p.Backends = slices.DeleteFunc(slices.Clone(p.Backends), func(b mesh.Backend) bool {
			_, out := f.withdrawn[b.Task]
			return out
		})
		for _, b := range p.Backends {
			if b.Node == f.self {
				f.local[target{p.Network, b.Task, b.Address}] = struct{}{}
				f.local[target{p.Network, b.Task, b.Address6}] = struct{}{} // none, and never asked for, if it is invalid
			}
		}
		switch open := f.ports[p.Listener]; {
		case open != nil && slices.Equal(open.bind, p.Bind) && (open.bind == nil) == (p.Bind == nil):
			open.set(p)
		case open != nil: // it answers elsewhere from now on
			gone = append(gone, open)
			delete(f.ports, p.Listener)
			missing = append(missing, p)
		default:
			missing = append(missing, p)
		}
	}
	for l, p := range f.ports {
		if !wanted[l] {
			gone = append(gone, p)
			delete(f.ports, l)
		}
	}
	for _, p := range gone {
		f.former[p.Listener] = p
	}
	maps.DeleteFunc(f.former, func(_ mesh.Listener, p *port) bool { return p.empty() })
	slices.SortFunc(gone, func(a, b *port) int { return cmp.Compare(a.Listener.String(), b.Listener.String()) })
	return missing, gone
}

// before is a service's port that was closed with clients that are still there, or nil: while it is open they are held to what it says.
func (f *Forwarder) before(want mesh.Port) *port {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.former[want.Listener]; p != nil && p.Service == want.Service {
		return p
	}
	return nil
}

// forgetWithdrawn needs the lock. A task that the stream has dropped is no longer ours to hold out.
func (f *Forwarder) forgetWithdrawn(ports []mesh.Port) {
	listed := map[string]bool{}
	for _, p := range ports {
		for _, b := range p.Backends {
			listed[b.Task] = true
		}
	}
	maps.DeleteFunc(f.withdrawn, func(task string, at time.Time) bool {
		return !listed[task] || time.Since(at) > withdrawTime
	})
}

// Withdraw takes a task out at once: of the turns here, and of what peers may ask for. Its established connections are its
// own; UDP clients go elsewhere with their next datagram.
func (f *Forwarder) Withdraw(task string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.withdrawn[task] = time.Now()
	maps.DeleteFunc(f.local, func(t target, _ struct{}) bool { return t.task == task })
	for _, p := range f.ports {
		p.drop(task)
	}
}

// rest puts a task or machine last in turn for a while.
func (f *Forwarder) rest(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resting[key] = time.Now().Add(restTime)
}

// lacks says that something failed for what this machine has none left of, and tells a person so. No task is to blame, and no machine.
func (f *Forwarder) lacks(err error) bool { return f.lack.Tell(f.env.Log, f.env.Now(), err) }

// awake leaves out who rests, unless all do.
func (f *Forwarder) awake(all []mesh.Backend) []mesh.Backend {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.resting) == 0 {
		return all
	}
	maps.DeleteFunc(f.resting, func(_ string, until time.Time) bool { return time.Now().After(until) })
	out := make([]mesh.Backend, 0, len(all))
	for _, b := range all {
		_, task := f.resting[b.Task]
		_, node := f.resting[b.Node]
		if !task && !node {
			out = append(out, b)
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}

// has says that the tables place this target on this machine.
func (f *Forwarder) has(t target) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.local[t]
	return ok
}

// addressesOf are where a port listens: on all addresses of the machine, loopback and IPv6 too, or on those that it is bound
// to.
func addressesOf(bind []netip.Addr, port uint16) []string {
	if bind == nil {
		return []string{":" + strconv.Itoa(int(port))}
	}
	var out []string
	for _, a := range bind {
		out = append(out, netip.AddrPortFrom(a, port).String())
	}
	return out
}
