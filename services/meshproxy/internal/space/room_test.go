package space_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// room is a network namespace of the test's own.
type room struct {
	t  testing.TB
	ns netns.NsHandle
}

func newRoom(t testing.TB) *room {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	r := &room{t: t, ns: -1}
	r.do(func() (err error) {
		if r.ns, err = netns.New(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	t.Cleanup(func() { r.ns.Close() })
	return r
}

// do runs f on a thread in the namespace.
func (r *room) do(f func() error) {
	r.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		var err error
		if r.ns >= 0 {
			err = netns.Set(r.ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
}

// carry waits until links of this thread's namespace carry packets. The kernel notices that both ends are set up in its own time, in
// line behind whatever else changes links on the machine; until then they and their bridge drop what is sent.
func carry(links ...string) error {
	updates, done := make(chan netlink.LinkUpdate, 100), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		return err
	}
	for late := time.After(time.Minute); len(links) > 0; {
		select {
		case u, ok := <-updates:
			if !ok {
				return errors.New("the kernel tells no more of links")
			}
			if at := u.Attrs(); at.OperState == netlink.OperUp {
				links = slices.DeleteFunc(links, func(name string) bool { return name == at.Name })
			}
		case <-late:
			return fmt.Errorf("links %v carry nothing after a minute", links)
		}
	}
	return nil
}
