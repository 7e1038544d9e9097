// Package knock finds machines that are off while nobody else can say so: it connects to the ports of their meshproxies, and has
// those that do not answer left out of new connections. Whom, when, and what follows is package silence's to say.
//
// It owns the knocks: a TCP connection each, ended as soon as it is made. A refusal is an answer. News is safe for concurrent
// use; the rest belongs to Run.
package knock

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/silence"
)

const (
	// wait bounds one knock.
	wait = time.Second
	// idle is the longest time between two looks at who holds tasks, while there is nobody to knock at.
	idle = time.Minute
	// named bounds how many machines the health names.
	named = 5
)

// Mesh is who is where, and takes who is to be left out.
type Mesh interface {
	Told() *mesh.Model
	LeaveOut(nodes map[string]bool)
}

// Health is told what waits, and why.
type Health interface {
	Set(part string, ok bool, why string)
}

// Loop is one machine's.
type Loop struct {
	env    run.Env
	node   string
	mesh   Mesh
	health Health
	silent prometheus.Gauge
	wake   chan struct{} // has a token when the news are other ones

	mu   sync.Mutex // guards below
	news silence.News
}

// New makes one. Metrics: shoal_mesh_machines_left_out.
func New(env run.Env, node string, m Mesh, h Health) *Loop {
	silent := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "shoal_mesh_machines_left_out", Help: "Machines that do not answer and get no new connections, while the cluster cannot say whether they are off.",
	})
	if env.Metrics != nil {
		env.Metrics.MustRegister(silent)
	}
	return &Loop{env: env, node: node, mesh: m, health: h, silent: silent, wake: make(chan struct{}, 1)}
}

// News takes what the machine's tables are worth from now on.
func (l *Loop) News(n silence.News) {
	l.mu.Lock()
	changed := l.news != n
	l.news = n
	l.mu.Unlock()
	if changed {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *Loop) heard() silence.News {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// answer is how a knock went.
type answer struct {
	node string
	ok   bool
}

// Run knocks until ctx ends.
func (l *Loop) Run(ctx context.Context) error {
	watch := silence.New(time.Now(), l.node)
	var known *mesh.Model
	var out []string
	answers := make(chan answer)
	side := run.NewSpawner(l.env.Log)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return side.Wait(context.WithoutCancel(ctx))
		case <-l.wake:
		case <-timer.C:
		case a := <-answers:
			watch.Answer(time.Now(), a.node, a.ok)
		}
		now := time.Now()
		watch.News(now, l.heard())
		if m := l.mesh.Told(); m != known {
			known = m
			watch.Peers(l.peers(m))
		}
		node, ok, at := watch.Next(now)
		if ok {
			l.knock(ctx, side, node, known.Peer(node), answers)
			at = now
		}
		if left := watch.Out(); !slices.Equal(left, out) {
			l.tell(known, left)
			out = left
		}
		pause := idle
		if !at.IsZero() {
			pause = min(idle, l.env.Rand.Jitter(max(at.Sub(now), time.Millisecond), 0.1))
		}
		timer.Reset(pause)
	}
}

// peers are those that can be knocked at: who has not said where it listens is not silent.
func (l *Loop) peers(m *mesh.Model) (holders, others []string) {
	held, rest := split(m)
	for _, of := range []map[string]bool{held, rest} {
		maps.DeleteFunc(of, func(id string, _ bool) bool { return id == l.node || len(m.Peer(id)) == 0 })
	}
	return slices.Sorted(maps.Keys(held)), slices.Sorted(maps.Keys(rest))
}

// split gives the machines to which new connections are led, and the rest.
func split(m *mesh.Model) (held, others map[string]bool) {
	held, others = map[string]bool{}, map[string]bool{}
	for _, svc := range m.Services().All() {
		for _, e := range svc.GetEndpoints() {
			held[e.GetNodeId()] = held[e.GetNodeId()] || !e.GetDraining()
		}
	}
	for _, n := range m.Networks() {
		for _, e := range n.GetEntries() {
			held[e.GetNodeId()] = true
		}
	}
	maps.DeleteFunc(held, func(_ string, holds bool) bool { return !holds })
	for id := range m.Machines() {
		if !held[id] {
			others[id] = true
		}
	}
	return held, others
}

// knock tries a machine's addresses side by side: it is there if one answers.
func (l *Loop) knock(ctx context.Context, side *run.Spawner, node string, addresses []string, answers chan<- answer) {
	side.Go(ctx, "knock", func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		there := make(chan bool, len(addresses))
		for _, at := range addresses {
			side.Go(limited, "address", func(ctx context.Context) error { there <- l.answers(ctx, at); return nil })
		}
		ok := false
		for range addresses {
			if ok = <-there; ok {
				break
			}
		}
		select {
		case answers <- answer{node, ok}:
		case <-ctx.Done():
		}
		return nil
	})
}

// answers says that a machine is at an address: it takes the connection, or refuses it, which only somebody who is there can.
func (l *Loop) answers(ctx context.Context, address string) bool {
	conn, err := l.env.Net.Dial(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close() // nothing was said
		return true
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// tell has the machines left out and says so.
func (l *Loop) tell(m *mesh.Model, out []string) {
	set := map[string]bool{}
	var names []string
	for _, id := range out {
		set[id] = true
		names = append(names, slices.Concat(m.Machines()[id].GetAddresses(), []string{id})[0])
	}
	l.mesh.LeaveOut(set)
	l.silent.Set(float64(len(out)))
	if len(out) == 0 {
		l.health.Set("machines", true, "")
		l.env.Log.Info("all machines get new connections again")
		return
	}
	if more := len(names) - named; more > 0 {
		names = append(names[:named], "and "+strconv.Itoa(more)+" more")
	}
	text := strings.Join(names, ", ")
	l.env.Log.Warn("machines left out of new connections", "machines", text, "why", "they do not answer, and the cluster cannot say whether they are off")
	l.health.Set("machines", false, "no answer from "+text+
		"; left out of new connections, since the cluster cannot say whether they are off. Bring the managers back, or the machines")
}
