package simhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/sim/simdisk"
	"github.com/shoalproject/shoal/test/sim/simnet"
)

// process is one incarnation. Its fields are guarded by the host's mutex, but for those that never change.
type process struct {
	host    *Host
	name    string
	run     Run
	cancel  context.CancelFunc
	sockets *simnet.Sockets
	files   *simdisk.Handle
	tickers *tickers
	metrics *prometheus.Registry
	done    chan struct{} // closed when the function has returned

	running bool   // has neither returned nor died
	killed  bool   // has died
	command bool   // its end is told to who ran it, and is no failure of the host
	wanted  bool   // is started again by Restart and AutoRestart
	state   string // the latest STATUS= of Notify
	ready   bool   // READY=1 was said
	deaths  []func()
	err     error
}

// launch needs the lock.
func (h *Host) launch(name string, f Run) { h.begin(name, f, true) }

// begin needs the lock. What is not wanted runs once: neither Restart nor AutoRestart starts it again.
func (h *Host) begin(name string, f Run, wanted bool) *process {
	if _, known := h.processes[name]; !known {
		h.order = append(h.order, name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{
		host: h, name: name, run: f, cancel: cancel, running: true, wanted: wanted,
		sockets: h.Net.Sockets(), files: h.Disk.Open(), tickers: newTickers(h.paused),
		metrics: prometheus.NewRegistry(), done: make(chan struct{}),
	}
	h.processes[name] = p
	env := p.env()
	result := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, f(ctx, env) })
	// A second task takes the result; run.Async is where goroutines start.
	run.Async(ctx, func(context.Context) (struct{}, error) {
		p.ended((<-result).Err)
		return struct{}{}, nil
	})
	return p
}

func (p *process) env() run.Env {
	h := p.host
	return run.Env{
		Host:    h.Name,
		Log:     h.log.logger(p),
		Net:     p.sockets,
		Files:   p.files,
		Now:     h.Now,
		Ticker:  p.tickers.start,
		Rand:    run.NewRand(h.rand.Uint64()),
		Metrics: p.metrics,
		Notify:  p.notify,
	}
}

// notify keeps what sd_notify would tell: lines of READY=1 and STATUS=...
func (p *process) notify(state string) error {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	for line := range strings.Lines(state) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		switch key {
		case "READY":
			p.ready = value == "1"
		case "STATUS":
			p.state = value
		}
	}
	return nil
}

// die takes everything from the process at this moment. Its function returns when it notices.
func (p *process) die(crash bool) {
	h := p.host
	h.mu.Lock()
	if !p.running {
		h.mu.Unlock()
		return
	}
	p.running, p.killed = false, true
	h.zombies = append(h.zombies, p)
	deaths := p.deaths
	h.mu.Unlock()

	p.sockets.Kill() // after a crash of the host they are dead already
	p.files.Kill()
	p.tickers.stop()
	for _, f := range deaths {
		f()
	}
	p.cancel() // last: see Host.Crash
	if crash {
		h.log.note(p.name, "power cut")
	} else {
		h.log.note(p.name, "killed")
	}
}

// ended takes the function's return. A process that has returned leaves no handle behind.
func (p *process) ended(err error) {
	h := p.host
	stopping := p.stopping()
	p.sockets.Kill()
	p.files.Kill()
	p.tickers.stop()
	p.cancel()
	if trouble, ok := errors.AsType[*run.PanicError](err); ok {
		h.log.note(p.name, fmt.Sprintf("%v\n%s", trouble, trouble.Stack))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	defer close(p.done)
	p.err = err
	if p.killed {
		h.zombies = slices.DeleteFunc(h.zombies, func(z *process) bool { return z == p })
		// A panic is a bug even in a process that is dead; all else that it says is not meant.
		if trouble, ok := errors.AsType[*run.PanicError](err); ok {
			h.failures = append(h.failures, fmt.Errorf("%s, after its death: %w", p.name, trouble))
		}
		return
	}
	p.running = false
	if err != nil && !p.command && !(stopping && errors.Is(err, context.Canceled)) {
		h.failures = append(h.failures, fmt.Errorf("%s: %w", p.name, err))
	}
	if p.wanted && h.restart > 0 {
		time.AfterFunc(h.restart, func() { h.again(p) })
	}
}

// stopping says that Stop was called.
func (p *process) stopping() bool {
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	return !p.wanted
}

// again is AutoRestart's turn, unless something else has happened to the name or the host meanwhile.
func (h *Host) again(p *process) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.processes[p.name] == p && p.wanted && !h.down {
		h.launch(p.name, p.run)
	}
}

// OnDeath registers what dies with the process that runs under the name now: f is called at the moment of Kill or Crash,
// before the context is cancelled, and must only mark a handle as dead. It is not called when the process ends otherwise.
// If there is no such process any more, f is called at once.
func (h *Host) OnDeath(name string, f func()) {
	h.mu.Lock()
	p := h.processes[name]
	if p != nil && p.running {
		p.deaths = append(p.deaths, f)
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	f()
}

// Ready says that the process runs and has said READY=1.
func (h *Host) Ready(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.processes[name]
	return p != nil && p.running && p.ready
}

// Status is the latest STATUS= that the process has said.
func (h *Host) Status(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.processes[name]; p != nil {
		return p.state
	}
	return ""
}

// Metrics is the registry of the latest process of that name, nil if it has never run.
func (h *Host) Metrics(name string) *prometheus.Registry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.processes[name]; p != nil {
		return p.metrics
	}
	return nil
}

// Await waits until the process is ready, and fails the test if that takes longer than d or the process has ended.
func (h *Host) Await(tb testing.TB, name string, d time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	defer cancel()
	for !h.Ready(name) {
		if run.Sleep(ctx, 10*time.Millisecond) != nil {
			tb.Fatalf("%s on host %s is not ready after %s: %q, errors %v", name, h.Name, d, h.Status(name), h.Errors())
		}
	}
}
