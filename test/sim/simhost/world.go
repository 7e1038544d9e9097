// Package simhost is the machines of a simulation: hosts with a network, a disk, a clock and processes, which can be
// crashed, paused, stopped and started again.
//
// A test makes a World (usually inside a testing/synctest bubble, so that hours pass in seconds), gives it hosts, and
// starts processes on them. A process is a function of (ctx, env), such as a service's Run:
//
//	synctest.Test(t, func(t *testing.T) {
//		w := simhost.New(t, seed)
//		m1 := w.Host("m1", "10.0.0.1")
//		m1.Start("ca", func(ctx context.Context, env run.Env) error { return ca.Run(ctx, cfg, env) })
//		m1.Await(t, "ca", time.Minute) // READY=1
//		w.Net.Partition([]string{"m1"}, []string{"m2"}, false)
//		m1.Disk.Slow(50 * time.Millisecond)
//		m1.Crash()   // power off: handles dead at this moment, then contexts cancelled
//		m1.Restart() // power on: what ran, runs again, on the same disk
//	})
//
// What an env type of a service adds (a store's storage, an agent's executor) is made inside that function. If it must
// die with the process, as a handle does, register its death: see Host.OnDeath.
//
// When the test ends, the World crashes every host, waits for every process, and closes the network. If it has failed,
// the seed and every host's log are printed.
//
// All methods may be called from any goroutine of the bubble. No mutex is held while something waits.
package simhost

import (
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim/simdisk"
	"github.com/shoalproject/shoal/test/sim/simnet"
)

// World is a set of hosts on one network.
type World struct {
	// Net is where faults between hosts are made.
	Net *simnet.Net
	// Seed is what everything random in this world comes from.
	Seed uint64

	mu    sync.Mutex // guards hosts
	hosts []*Host
}

// closePatience is how long the processes of a closing world have to return.
const closePatience = time.Minute

// New makes a world that ends with the test.
func New(tb testing.TB, seed uint64) *World {
	w := &World{Net: simnet.New(seed), Seed: seed}
	tb.Cleanup(func() {
		w.Close(tb)
		if tb.Failed() {
			tb.Logf("seed %d", seed)
			for _, h := range w.Hosts() {
				tb.Logf("log of host %s:\n%s", h.Name, h.Log())
			}
		}
	})
	return w
}

// Host adds a host; without addresses it gets one. A name that is known gives the host that has it.
func (w *World) Host(name string, addrs ...string) *Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hosts {
		if h.Name == name {
			return h
		}
	}
	seed := w.derive(name)
	h := &Host{
		Name:      name,
		Net:       w.Net.Host(name, addrs...),
		Disk:      simdisk.New(seed),
		net:       w.Net,
		rand:      run.NewRand(seed),
		processes: map[string]*process{},
	}
	w.hosts = append(w.hosts, h)
	return h
}

// derive makes a host's seed of the world's and its name, so that a host more does not change the others.
func (w *World) derive(name string) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(name)) // a hash takes everything
	return sum.Sum64() ^ w.Seed*0x9e3779b97f4a7c15
}

// Hosts are all hosts, in the order of their making.
func (w *World) Hosts() []*Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hosts)
}

// Close crashes every host and waits for every process. A process that does not return is an error of the test. It may
// be called again.
func (w *World) Close(tb testing.TB) {
	tb.Helper()
	for _, h := range w.Hosts() {
		h.Crash()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	for _, h := range w.Hosts() {
		if names := h.wait(ctx); len(names) > 0 {
			tb.Errorf("host %s: still running %s after its crash: %v", h.Name, closePatience, names)
		}
	}
	w.Net.Close()
}
