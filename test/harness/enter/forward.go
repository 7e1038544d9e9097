package enter

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// forward passes the signals on that reach this process alone, so that a time limit on it also ends the command. The
// terminal's own signals reach the command anyway; they are caught here (not ignored: a child would inherit that)
// because this process must outlive the command to pass its exit code on.
func forward(process *os.Process) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	var group errgroup.Group
	group.Go(func() error {
		for s := range signals {
			if s != syscall.SIGINT && s != syscall.SIGQUIT {
				_ = process.Signal(s) // it has ended: Wait tells
			}
		}
		return nil
	})
}
