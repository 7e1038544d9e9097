package hostinit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// notifyPath is where a unit's process says READY=1 (sd_notify(3)). Each unit has a socket of its own, so that
// nothing needs to be guessed about the sender.
func notifyPath(name string) string { return filepath.Join(notifyDir, name) }

const notifyDir = "/run/shoal-lab/notify"

// listen opens a unit's notify socket, once a boot. The caller holds the mutex.
func (s *Supervisor) listen(u *unit) error {
	path := notifyPath(u.name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("listen for the readiness of %s: %w", u.name, err)
	}
	// The group is never waited for: the socket lives as long as the host.
	var group errgroup.Group
	group.Go(func() error { return s.hear(u, socket) })
	return nil
}

func (s *Supervisor) hear(u *unit, socket *net.UnixConn) error {
	buffer := make([]byte, 4096)
	for {
		n, err := socket.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("hear %s: %w", u.name, err)
		}
		for line := range strings.Lines(string(buffer[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				s.mu.Lock()
				u.ready()
				s.mu.Unlock()
			}
		}
	}
}
