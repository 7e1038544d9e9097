package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Real is the operating system.
type Real struct{}

// Find looks beside shoal's own program first, so that programs of one build work together.
func (Real) Find(name string) (string, error) {
	if own, err := os.Executable(); err == nil && strings.HasPrefix(name, "shoal-") {
		beside := filepath.Join(filepath.Dir(own), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}

// Run waits for a program. Its standard output is returned, its standard error is part of the error.
func (Real) Run(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := strings.TrimSpace(said.String())
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && text != "" {
		return out.String(), fmt.Errorf("%s (exit code %d)", text, exit.ExitCode())
	}
	return out.String(), fmt.Errorf("%s: %w", filepath.Base(name), err)
}

// Privileged says whether this is root.
func (Real) Privileged() bool { return os.Geteuid() == 0 }

// Addresses are those of all interfaces.
func (Real) Addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, prefix.Addr().Unmap())
		}
	}
	return out, nil
}

// Source asks the kernel's routes. Nothing is sent.
func (Real) Source(ctx context.Context, hostport string) (netip.Addr, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", hostport)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	at, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return at.Addr().WithZone(""), err
}

// RemoveAll deletes a folder and all below it.
func (Real) RemoveAll(path string) error { return os.RemoveAll(path) }
