package dns

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/names"
)

const (
	maxQuestion = 4096 // bytes; no sane one is longer
	// idleLimit ends a TCP connection on which nothing is asked, writeLimit one that does not take its answer.
	idleLimit  = 10 * time.Second
	writeLimit = 3 * time.Second
)

// packets answers datagrams until the socket fails or ctx ends. What the cluster itself knows is answered at once, in the
// order that it came; what has to be asked outside waits beside it.
func (s *Server) packets(ctx context.Context, at netip.AddrPort, tried func()) error {
	pc, err := s.env.Net.ListenPacket(ctx, "udp"+family(at), at.String())
	if err != nil {
		return fmt.Errorf("listen for names on %s: %w", at, err)
	}
	defer context.AfterFunc(ctx, func() { _ = pc.Close() })()
	defer pc.Close()
	s.heard(at, tried)
	buf := make([]byte, maxQuestion)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("read on %s: %w", at, err)
		}
		client := s.client(from)
		if client == nil {
			continue // a stranger is not even told that somebody is here
		}
		q, ok := s.read(client, buf[:n])
		if !ok {
			continue
		}
		reply := func(answer []byte) {
			_, _ = pc.WriteTo(answer, from) // as with any datagram: who misses it asks again
		}
		if answer := s.inside(q, true); answer != nil {
			reply(answer)
			continue
		}
		s.tasks.Go(ctx, "forward", func(ctx context.Context) error {
			reply(s.forward(ctx, q, true))
			return nil
		})
	}
}

// streams answers connections until the listener fails or ctx ends.
func (s *Server) streams(ctx context.Context, at netip.AddrPort, tried func()) error {
	l, err := s.env.Net.Listen(ctx, "tcp"+family(at), at.String())
	if err != nil {
		return fmt.Errorf("listen for names on %s: %w", at, err)
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	defer l.Close()
	s.heard(at, tried)
	for {
		conn, err := l.Accept()
		if err != nil && s.lack.Tell(s.env.Log, s.env.Now(), err) && run.Sleep(ctx, retry) == nil {
			continue // the socket is good, and others ask by it when there is room again
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", at, err)
		}
		client := s.client(conn.RemoteAddr())
		if client == nil || !s.limits.open(client.Task) {
			_ = conn.Close() // refused
			continue
		}
		s.tasks.Go(ctx, "connection", func(ctx context.Context) error {
			defer s.limits.close(client.Task)
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			defer conn.Close()
			s.converse(ctx, conn)
			return nil
		})
	}
}

// converse answers one question after the other (RFC 7766), each by what its asker may see at that moment.
func (s *Server) converse(ctx context.Context, conn net.Conn) {
	head := make([]byte, 2)
	for {
		_ = conn.SetDeadline(time.Now().Add(idleLimit)) // a connection without deadlines is ended by its other side
		if _, err := io.ReadFull(conn, head); err != nil {
			return
		}
		question := make([]byte, min(binary.BigEndian.Uint16(head), maxQuestion))
		if _, err := io.ReadFull(conn, question); err != nil {
			return
		}
		client := s.client(conn.RemoteAddr())
		if client == nil {
			return
		}
		q, ok := s.read(client, question)
		if !ok {
			return
		}
		answer := s.inside(q, false)
		if answer == nil {
			answer = s.forward(ctx, q, false)
		}
		_ = conn.SetDeadline(time.Now().Add(writeLimit))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}

// client is who asks, by the address that the question came from; nil for a stranger.
func (s *Server) client(from net.Addr) *names.Client {
	at, err := netip.ParseAddrPort(from.String())
	if err != nil {
		return nil
	}
	client := s.view.Load().Client(at.Addr())
	if client == nil {
		s.results.WithLabelValues("stranger").Inc()
	}
	return client
}

func family(at netip.AddrPort) string {
	if at.Addr().Is4() {
		return "4"
	}
	return "6"
}
