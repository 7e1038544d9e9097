package run

import (
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// lackEvery is how often a process says that it has come to a bound.
const lackEvery = time.Minute

// Lacking says that an error is about what this process or its machine has none left of: whoever was to be reached is not to blame, and
// there may be some in a moment.
func Lacking(err error) bool { return remedy(err) != "" }

// remedy is what a person can do about it; empty for all other errors.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise LimitNOFILE of this process's unit (ulimit -n)"
	case errors.Is(err, syscall.ENFILE):
		return "raise the sysctl fs.file-max"
	case errors.Is(err, syscall.ENOSPC):
		return "raise the sysctl fs.epoll.max_user_watches"
	case errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
		return "give the machine more memory, or it fewer connections (sysctl net.ipv4.tcp_mem)"
	}
	return ""
}

// Lacks tells of a process's lacks: once a minute, however often it meets them. Its zero value is ready, and safe for concurrent use.
type Lacks struct {
	mu   sync.Mutex // guards below
	told time.Time
}

// Tell says that an error is a lack, and has told of it if it is time to.
func (l *Lacks) Tell(log *slog.Logger, now time.Time, err error) bool {
	do := remedy(err)
	if do == "" {
		return false
	}
	l.mu.Lock()
	due := l.told.IsZero() || now.Sub(l.told) >= lackEvery
	if due {
		l.told = now
	}
	l.mu.Unlock()
	if due {
		log.Error("connections wait: this process has come to a bound of its own", "error", err, "remedy", do)
	}
	return true
}
