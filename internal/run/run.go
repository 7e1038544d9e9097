// Package run is the seam between our processes and the world: what a process takes from outside (Env), how it is started
// (Main), and the only place with `go` statements (Group, Spawner, Each, Beside,
// Async).
//
// A process is a function Run(ctx, cfg, env) error. On a machine env is the operating system (Machine); in test/sim it is
// a simulated network and disk in virtual time. So services touch no socket, file, signal or environment variable except
// through Env. Durations and timers use package time; wall time is Env.Now.
//
// It must never know what a process does. Everything in Env is safe for concurrent use.
package run

import (
	"context"
	"io/fs"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoalproject/shoal/internal/beside"
)

// Env is everything that a process takes from outside. A nil field means the real thing: see OrMachine.
type Env struct {
	// Host is the host's name.
	Host string
	// Log is the process's logger.
	Log *slog.Logger
	// Net opens all connections.
	Net Network
	// Files reads and writes small files: certificates, keys, the member list.
	Files Files
	// Now is wall time, for certificates and stamps only. Durations are measured with package time.
	Now func() time.Time
	// Ticker makes the ticks of lease and liveness loops, so that a paused host can hold them.
	Ticker func(d time.Duration) Ticker
	// Rand is the source of all random choices, keys and ids.
	Rand *Rand
	// Metrics is where the process registers its metrics; fresh for each process.
	Metrics *prometheus.Registry
	// Notify tells the init system a state: "READY=1", "STATUS=waiting for the store".
	Notify func(state string) error
	// Supervised says that an init system listens to Notify, and starts the process again when it ends.
	Supervised bool
	// Watchdog is how long the init system waits for a sign of life; 0: it does not.
	Watchdog time.Duration
	// Reload is how the process is told to read its config again; nil: nobody does.
	Reload *Reload
}

// tell is Notify for what nobody depends on.
func (e Env) tell(state string) {
	if e.Notify == nil {
		return
	}
	if err := e.Notify(state); err != nil {
		e.Log.Debug("init system was not told", "error", err)
	}
}

// Ticker is a time.Ticker that somebody may hold. A slow receiver misses ticks; they are not queued.
type Ticker interface {
	C() <-chan time.Time
	Stop()
}

// Network opens connections of one host. Addresses are as in package net; errors are net.OpError or the context's.
type Network interface {
	// Listen takes network "tcp", "tcp4", "tcp6" or "unix".
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	// ListenPacket takes "udp", "udp4" or "udp6".
	ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error)
	// Dial takes what Listen takes, and "udp".
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// Files keeps small files, whole. Names are slash paths. It is for what fits in memory; streams and logs have their own
// interfaces in the services that need them.
type Files interface {
	// Read returns the content; an absent file is an error that wraps fs.ErrNotExist.
	Read(name string) ([]byte, error)
	// Write replaces the file atomically and durably: after a crash there is the old content or the new, and once Write has
	// returned, the new. Missing parent directories are made with mode 0700.
	Write(name string, data []byte, mode fs.FileMode) error
	// Create is Write for a file that is not there yet. One that is there stays as it is, and the error wraps fs.ErrExist:
	// of several that create at once, one does.
	Create(name string, data []byte, mode fs.FileMode) error
	// Remove deletes a file or an empty directory, durably; an absent one is no error.
	Remove(name string) error
	// List returns the sorted names in a directory, nil when it is absent.
	List(dir string) ([]string, error)
	// Stat describes a file; an absent one is an error that wraps fs.ErrNotExist.
	Stat(name string) (fs.FileInfo, error)
}

// Sleep waits for the duration or the context's end, whose error it returns.
func Sleep(ctx context.Context, d time.Duration) error { return beside.Sleep(ctx, d) }
