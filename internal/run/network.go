package run

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// machineNetwork is the operating system's network.
type machineNetwork struct{}

func (machineNetwork) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if network == "unix" {
		return listenUnix(ctx, address)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
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
