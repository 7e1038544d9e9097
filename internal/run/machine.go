package run

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/journald"
)

// Machine is the real operating system. Name is the process's, e.g. "shoal-store"; it is on every log line.
func Machine(name string) Env {
	return Env{}.OrMachine(name)
}

// OrMachine fills every nil field with the real thing.
func (e Env) OrMachine(name string) Env {
	if e.Host == "" {
		e.Host, _ = os.Hostname() // an unnamed host is told from others by its machine id
	}
	if e.Log == nil {
		e.Log = AtLevel(slog.New(logHandler(os.Stderr, name)), slog.LevelInfo).With("process", name)
	}
	if e.Net == nil {
		e.Net = machineNetwork{}
	}
	if e.Files == nil {
		e.Files = machineFiles{}
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Ticker == nil {
		e.Ticker = newMachineTicker
	}
	if e.Rand == nil {
		e.Rand = newMachineRand()
	}
	if e.Metrics == nil {
		e.Metrics = prometheus.NewRegistry()
		e.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	if e.Notify == nil {
		e.Notify = sdNotify
		e.Supervised, e.Watchdog = os.Getenv("NOTIFY_SOCKET") != "", machineWatchdog()
	}
	return e
}

// logHandler writes to the journal if the output leads there, text that a person can read when it is a terminal, and
// else JSON. It writes all levels.
func logHandler(out *os.File, name string) slog.Handler {
	all := &slog.HandlerOptions{Level: slog.LevelDebug}
	if journald.Leads(out, os.Getenv("JOURNAL_STREAM")) {
		return journald.New(journald.Socket, "shoal-"+strings.TrimPrefix(name, "shoal-"), slog.NewJSONHandler(out, all))
	}
	if _, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS); err == nil {
		return slog.NewTextHandler(out, all)
	}
	return slog.NewJSONHandler(out, all)
}

type machineTicker struct{ t *time.Ticker }

func newMachineTicker(d time.Duration) Ticker { return machineTicker{time.NewTicker(d)} }
func (m machineTicker) C() <-chan time.Time   { return m.t.C }
func (m machineTicker) Stop()                 { m.t.Stop() }

// sdNotify speaks systemd's notification protocol (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET names,
// where a leading @ stands for the abstract namespace. Without the variable nobody listens, and that is fine.
func sdNotify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the init system: %w", err)
	}
	defer conn.Close()
	if state == "RELOADING=1" {
		var now unix.Timespec // systemd tells by it which reload is meant
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
			state += fmt.Sprintf("\nMONOTONIC_USEC=%d", now.Nano()/1000)
		}
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify the init system: %w", err)
	}
	return nil
}
