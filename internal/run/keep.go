package run

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// firstInherited is the first file that an init system hands over (sd_listen_fds(3)).
const firstInherited = 3

// KeepSockets returns a network like n whose TCP listeners and UDP sockets outlive the process, where systemd runs it with
// FileDescriptorStoreMax: systemd keeps a copy of each, and hands it to the next process, which finds it when it listens on
// the same address. A client that comes between the two waits in the kernel's queue and is not refused. Anywhere else n
// itself is returned. It is for one call a process.
//
// A socket that is no longer wanted must be forgotten by ForgetSocket, beside being closed.
func KeepSockets(n Network) Network {
	path := os.Getenv("NOTIFY_SOCKET")
	if _, ok := n.(machineNetwork); !ok || path == "" {
		return n
	}
	return &keeping{init: path, inherited: inherit(os.Getenv, os.Getpid())}
}

// ForgetSocket has systemd let go of a socket of a network that KeepSockets returned.
func ForgetSocket(n Network, network, address string) error {
	if k, ok := n.(*keeping); ok {
		return k.forget(socketName(network, address))
	}
	return nil
}

// DropUnclaimed closes and forgets what was handed over and has not been listened on since.
func DropUnclaimed(n Network) error {
	k, ok := n.(*keeping)
	if !ok {
		return nil
	}
	k.mu.Lock()
	unclaimed := k.inherited
	k.inherited = nil
	k.mu.Unlock()
	for name, file := range unclaimed {
		_ = file.Close() // it is given up
		if err := k.forget(name); err != nil {
			return err
		}
	}
	return nil
}

// keeping is the machine's network with an init system that keeps sockets.
type keeping struct {
	machineNetwork
	init string // where the init system listens

	mu        sync.Mutex // guards below
	inherited map[string]*os.File
}

func (k *keeping) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network == "unix" {
		return k.machineNetwork.Listen(ctx, network, address)
	}
	name := socketName(network, address)
	if file := k.take(name); file != nil {
		defer file.Close() // the listener has a copy
		return net.FileListener(file)
	}
	l, err := k.machineNetwork.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if conn, ok := l.(syscall.Conn); ok {
		_ = k.store(name, conn) // without it the next process listens anew
	}
	return l, nil
}

func (k *keeping) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	name := socketName(network, address)
	if file := k.take(name); file != nil {
		defer file.Close()
		return net.FilePacketConn(file)
	}
	pc, err := k.machineNetwork.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if conn, ok := pc.(syscall.Conn); ok {
		_ = k.store(name, conn)
	}
	return pc, nil
}

func (k *keeping) take(name string) *os.File {
	k.mu.Lock()
	defer k.mu.Unlock()
	file := k.inherited[name]
	delete(k.inherited, name)
	return file
}

// store sends a copy. FDPOLL=0: it is not dropped by itself, because nothing that the kernel tells of a listener ends it.
func (k *keeping) store(name string, conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		sent = k.tell("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, unix.UnixRights(int(fd)))
	})
	if err != nil {
		return err
	}
	return sent
}

func (k *keeping) forget(name string) error {
	return k.tell("FDSTOREREMOVE=1\nFDNAME="+name, nil)
}

// tell sends one datagram. Package net sends no files by a connected socket of that kind.
func (k *keeping) tell(state string, rights []byte) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.Sendmsg(fd, []byte(state), rights, &unix.SockaddrUnix{Name: k.init}, 0)
	}
	if err != nil {
		return fmt.Errorf("tell the init system of a socket: %w", err)
	}
	return nil
}

// socketName is a name that systemd takes: no colon, which separates them.
func socketName(network, address string) string {
	return network + "-" + strings.ReplaceAll(address, ":", "_")
}

// inherit reads what was handed over to the process pid. Of two files of one name the first counts.
func inherit(getenv func(string) string, pid int) map[string]*os.File {
	files := map[string]*os.File{}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || getenv("LISTEN_PID") != strconv.Itoa(pid) {
		return files
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		file := os.NewFile(uintptr(fd), "inherited")
		if i >= len(names) || files[names[i]] != nil {
			_ = file.Close() // nobody can ask for it
			continue
		}
		files[names[i]] = file
	}
	return files
}
