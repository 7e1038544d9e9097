package e2e

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// space is the network of a machine, or of a container on it, as this test enters it.
func (c *cluster) space(host string, container int) string {
	c.t.Helper()
	pid, err := c.lab.PID(c.t.Context(), host, "containerd")
	c.must(err)
	if container == 0 {
		return fmt.Sprintf("/proc/%d/ns/net", pid)
	}
	return fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", pid, container)
}

// within does something in a network. What is opened there stays there.
func within(space string, f func() error) error {
	file, err := os.Open(space)
	if err != nil {
		return err
	}
	defer file.Close()
	done := make(chan error, 1)
	go func() {
		// The thread stays in that network, so it is not given back: Go ends it with its goroutine.
		runtime.LockOSThread()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// dialWithin makes a connection from a network.
func dialWithin(space, network, address string) (conn net.Conn, err error) {
	err = within(space, func() (err error) {
		conn, err = net.DialTimeout(network, address, 2*time.Second)
		return err
	})
	return conn, err
}
