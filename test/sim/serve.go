package sim

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/internal/run"
)

// containers is a meshproxy's network on a machine with hollow containers: what it dials at a container's address is
// answered by one line with the task's id. All else goes to the simulated network.
type containers struct {
	run.Network
	m *Machine
}

// isContainer tells an address of a cluster's machine network, 10.128.0.0/10.
func isContainer(a netip.Addr) bool {
	b := a.As16()
	return a.Is4() && b[12] == 10 && b[13]&0xc0 == 128
}

// Dial is as in run.Network.
func (n containers) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !isContainer(at.Addr()) {
		return n.Network.Dial(ctx, network, address)
	}
	c, ok := n.m.Runtime.At(at.Addr())
	if !ok {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(at), Err: syscall.EHOSTUNREACH}
	}
	// A listener for this connection alone: what serves ends with it, and nothing of it outlives a test.
	l, err := n.m.Net.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	run.Async(ctx, func(context.Context) (struct{}, error) {
		conn, err := l.Accept()
		if err != nil {
			return struct{}{}, err
		}
		_, err = io.WriteString(conn, c.TaskID+"\n")
		return struct{}{}, errors.Join(err, conn.Close(), l.Close())
	})
	conn, err := n.Network.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return conn, nil
}

// Ask opens a connection to a port of a machine, as a client elsewhere does, and returns the task that answers.
func (c *Cluster) Ask(m *Machine, port string) (task string, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), callTimeout)
	defer cancel()
	conn, err := c.W.Host("desk").Net.Dial(ctx, "tcp", net.JoinHostPort(m.Address, port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), err
}
