package network

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

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
	open, failed := asked()
	if failed != nil { // a kernel without CONFIG_INET_DIAG
		open = read()
	}
	if err := netns.Set(home); err != nil {
		runtime.LockOSThread() // one lock too many: the thread ends with its goroutine
		return false, err
	}
	return open, nil
}

// listening is the state of such sockets (include/net/tcp_states.h).
const listening = 10

// asked asks for the listening sockets of the thread's namespace alone (sock_diag(7)). In /proc they are found as well, but the kernel
// then goes through the machine's table of connections, which takes it a millisecond and more.
func asked() (bool, error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		req.AddRawData(question(family))
		answers, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
		if err != nil {
			return false, err
		}
		for _, a := range answers {
			if outside(a) {
				return true, nil
			}
		}
	}
	return false, nil
}

// question is a struct inet_diag_req_v2 (linux/inet_diag.h): family, protocol, two bytes of nothing, a bit a state, and 48 bytes that
// would name one socket.
func question(family byte) []byte {
	const size = 56
	return append(binary.NativeEndian.AppendUint32([]byte{family, unix.IPPROTO_TCP, 0, 0}, 1<<listening), make([]byte, size-8)...)
}

// outside reads a struct inet_diag_msg: its family, state, two bytes of timers, two ports, and the address that it listens at.
func outside(m []byte) bool {
	const local, room = 8, net.IPv6len
	if len(m) < local+room || m[1] != listening {
		return false
	}
	size := room
	if m[0] == unix.AF_INET {
		size = net.IPv4len
	}
	a, ok := netip.AddrFromSlice(m[local : local+size])
	return ok && !a.Unmap().IsLoopback()
}

// read reads the tables of the thread's namespace.
func read() (open bool) {
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + table) // not there: the kernel has no such sockets
		open = open || err == nil && listens(data)
	}
	return open
}

// listens reads a table of /proc/net (proc_pid_net(5)): "sl local_address rem_address st …".
func listens(table []byte) bool {
	for line := range bytes.Lines(table) {
		f := strings.Fields(string(line))
		if len(f) > 3 && f[3] == "0A" && !loopback(f[1]) {
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
