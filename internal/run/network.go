package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machineNetwork is the operating system's network.
type machineNetwork struct{}

func (machineNetwork) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network == "unix" {
		return listenUnix(ctx, address)
	}
	lc := net.ListenConfig{KeepAlive: -1, Control: keepAlive}
	lc.SetMultipathTCP(false) // nobody asks for it, and each connection would pay
	return lc.Listen(ctx, network, address)
}

// keepAlive has a listener's connections probe their silent peers as package net would, which asks the kernel for it in four
// calls a connection: they inherit it instead.
func keepAlive(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	const seconds, probes = 15, 9
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, probes),
		)
	})
	return errors.Join(failed, err)
}

func (machineNetwork) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, address)
}

func (machineNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// listenUnix makes the socket's folder, which is gone after each boot where it lies in /run, and replaces a socket that nobody answers on: a killed process leaves its socket file behind, and must be able to
// start again. The socket is for its owner and group (0660); its directory's owner decides which group that is.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := makeDirs(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("make the folder of the socket %s: %w", path, err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if errors.Is(err, syscall.EADDRINUSE) && staleSocket(ctx, path) {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("replace the dead socket %s: %w", path, err)
		}
		l, err = lc.Listen(ctx, "unix", path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("set the mode of socket %s: %w", path, err), l.Close())
	}
	return l, nil
}

// staleSocket says that path is a socket and a connection to it is refused.
func staleSocket(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return false
	}
	info, statErr := os.Lstat(path)
	return errors.Is(err, syscall.ECONNREFUSED) && statErr == nil && info.Mode().Type() == os.ModeSocket
}
