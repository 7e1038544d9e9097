package network

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"

	"github.com/shoalproject/shoal/internal/errs"
)

// Listens says whether something in a container's namespace takes connections from outside. Errors: NotFound (it
// has no namespace of its own).
func (k *Kernel) Listens(id string) (bool, error) {
	space, err := netns.GetFromPath(filepath.Join(k.spaces, id))
	if errors.Is(err, os.ErrNotExist) {
		return false, errs.New(errs.NotFound, "container %s has no network namespace", id)
	}
	if err != nil {
		return false, err
	}
	defer space.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return false, err
	}
	defer home.Close()
	if err := netns.Set(space); err != nil {
		return false, errs.New(errs.NotFound, "enter the network namespace of %s: %w", id, err)
	}
	open := false
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + table) // not there: the kernel has no such sockets
		open = open || err == nil && listens(data)
	}
	if err := netns.Set(home); err != nil {
		runtime.LockOSThread() // one lock too many: the thread ends with its goroutine
		return false, err
	}
	return open, nil
}

// listening is the state of such sockets as the kernel shows it (include/net/tcp_states.h).
const listening = "0A"

// listens reads a table of /proc/net (proc_pid_net(5)): "sl local_address rem_address st …".
func listens(table []byte) bool {
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) > 3 && f[3] == listening && !loopback(f[1]) {
			return true
		}
	}
	return false
}

// loopback reads an address as the kernel writes it: words of 32 bits, each as a number of the machine's.
func loopback(local string) bool {
	text, _, _ := strings.Cut(local, ":")
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw)%4 != 0 {
		return false
	}
	for word := raw; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	a, ok := netip.AddrFromSlice(raw)
	return ok && a.Unmap().IsLoopback()
}
