package simhost

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim/simdisk"
	"github.com/shoalproject/shoal/test/sim/simnet"
)

// Run is a process: what Start runs. It returns when its context ends.
type Run func(ctx context.Context, env run.Env) error

// Host is one machine. Make it with World.Host.
type Host struct {
	// Name is the host's name, which resolves on the network.
	Name string
	// Net is its place on the network. It is a run.Network for what a test does on the host outside of a process.
	Net *simnet.Host
	// Disk survives crashes; its faults are made here, and its Files are for set-up and inspection.
	Disk *simdisk.Disk

	net  *simnet.Net
	rand *run.Rand
	log  log

	mu        sync.Mutex // guards all below
	offset    time.Duration
	down      bool
	paused    bool
	restart   time.Duration
	processes map[string]*process // the latest incarnation of each name
	order     []string            // of their first start
	zombies   []*process          // dead, and not yet returned
	failures  []error
}

// AutoRestart makes the host start a process again d after it has ended by itself, with or without an error, as systemd's
// Restart=always does; 0, the default, does not. Stop, Kill and Crash are not an end by itself.
func (h *Host) AutoRestart(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.restart = d
}

// SetClock puts the host's wall clock (env.Now) that much ahead of the world's, or behind it. Timers are not touched.
func (h *Host) SetClock(offset time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.offset = offset
}

// Now is the host's wall clock.
func (h *Host) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Add(h.offset)
}

// Start runs a process. It fails if the host is down or a process of that name runs.
func (h *Host) Start(name string, f Run) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		return fmt.Errorf("start %s on host %s: the host is down", name, h.Name)
	}
	if p := h.processes[name]; p != nil && p.running {
		return fmt.Errorf("start %s on host %s: it runs already", name, h.Name)
	}
	h.launch(name, f)
	return nil
}

// Command runs f once, as a person's command on the host does, and returns what it returned: no restart of the host or of
// the process starts it again. If it is killed, or the host crashes, the error is what f made of that.
func (h *Host) Command(name string, f Run) error {
	h.mu.Lock()
	if h.down {
		h.mu.Unlock()
		return fmt.Errorf("run %s on host %s: the host is down", name, h.Name)
	}
	if p := h.processes[name]; p != nil && p.running {
		h.mu.Unlock()
		return fmt.Errorf("run %s on host %s: it runs already", name, h.Name)
	}
	p := h.begin(name, f, false)
	p.command = true
	h.mu.Unlock()
	<-p.done
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.err
}

// Stop ends a process gracefully: its context is cancelled, its handles live on until it has returned. The error is the
// one that it returned. A process that is not running is no error.
func (h *Host) Stop(name string) error {
	p := h.process(name)
	if p == nil {
		return nil
	}
	h.mu.Lock()
	p.wanted = false
	h.mu.Unlock()
	p.cancel()
	<-p.done
	h.mu.Lock()
	defer h.mu.Unlock()
	return p.err
}

// Kill is SIGKILL for one process: its handles are dead at this moment, the host closes its connections, its context is
// cancelled. It does not wait for the function to return. It may be started again at once.
func (h *Host) Kill(name string) {
	if p := h.process(name); p != nil {
		h.mu.Lock()
		p.wanted = false
		h.mu.Unlock()
		p.die(false)
	}
}

// Crash is a power cut: every handle of the host is dead at this moment, nobody on the network is told, then the contexts
// are cancelled. The disk and the clock's offset stay.
func (h *Host) Crash() {
	h.mu.Lock()
	h.down = true
	victims := h.alive()
	h.mu.Unlock()
	// Step 1: the network first, for the whole host, so that the death of single processes cannot close connections.
	h.net.Crash(h.Name)
	// Step 2: all else that belongs to a process, and last its context, so that no deferred courtesy gets through.
	for _, p := range victims {
		p.die(true)
	}
}

// Boot brings the host up again and starts nothing.
func (h *Host) Boot() {
	h.mu.Lock()
	h.down, h.paused = false, false
	h.mu.Unlock()
	h.net.Boot(h.Name)
}

// Restart is Crash if the host is up, then Boot, then the start of every process that ran when the host went down, as
// enabled units are, in the order of their first start.
func (h *Host) Restart() {
	h.mu.Lock()
	up := !h.down
	h.mu.Unlock()
	if up {
		h.Crash()
	}
	h.Boot()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.order {
		if p := h.processes[name]; p.wanted && !p.running {
			h.launch(name, p.run)
		}
	}
}

// StartAgain starts a process that was stopped, killed or has ended, with the function it had.
func (h *Host) StartAgain(name string) error {
	h.mu.Lock()
	p := h.processes[name]
	h.mu.Unlock()
	if p == nil {
		return fmt.Errorf("start %s on host %s: it has never run", name, h.Name)
	}
	return h.Start(name, p.run)
}

// Pause stops what goes to and from the host, and holds the ticks of env.Ticker. Other timers go on.
func (h *Host) Pause() { h.setPaused(true) }

// Resume ends a pause: what waited arrives, and each ticker that has missed ticks ticks once.
func (h *Host) Resume() { h.setPaused(false) }

func (h *Host) setPaused(paused bool) {
	h.mu.Lock()
	h.paused = paused
	alive := h.alive()
	h.mu.Unlock()
	if paused {
		h.net.Pause(h.Name)
	} else {
		h.net.Resume(h.Name)
	}
	for _, p := range alive {
		p.tickers.hold(paused)
	}
}

// Down says that the host has crashed and was not booted.
func (h *Host) Down() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.down
}

// Running are the names of the processes that run, in the order of their first start.
func (h *Host) Running() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for _, name := range h.order {
		if h.processes[name].running {
			names = append(names, name)
		}
	}
	return names
}

// Errors are what processes returned that ended by themselves, each with its name. What a dead process returned is not
// among them.
func (h *Host) Errors() []error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.failures)
}

// Log is the latest of what the host's processes have logged, each line with its virtual time.
func (h *Host) Log() string { return h.log.String() }

// process is the running one of that name, or nil.
func (h *Host) process(name string) *process {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.processes[name]; p != nil && p.running {
		return p
	}
	return nil
}

// alive needs the lock.
func (h *Host) alive() []*process {
	var all []*process
	for _, name := range h.order {
		if p := h.processes[name]; p.running {
			all = append(all, p)
		}
	}
	return all
}

// wait gives the names of what has not returned when ctx ends.
func (h *Host) wait(ctx context.Context) (names []string) {
	h.mu.Lock()
	all := slices.Concat(h.zombies, h.alive())
	h.mu.Unlock()
	for _, p := range all {
		select {
		case <-p.done:
		case <-ctx.Done():
			names = append(names, p.name)
		}
	}
	return names
}
