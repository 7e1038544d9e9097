package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// acceptRetry is the wait after an accept that failed, for lack of file descriptors mostly.
const acceptRetry = 50 * time.Millisecond

// door takes connections in: the handshake, then to whoever serves the protocol.
type door struct {
	server *Server
	tasks  *run.Spawner
	grpc   *grpcSide
	http   *queue
	slots  slots
	lack   run.Lacks
}

// accept takes connections of one listener until it is closed.
func (d *door) accept(ctx context.Context, l net.Listener) error {
	config := d.server.keep.ServerTLS(d.server.protocols()...)
	for {
		raw, err := l.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			if raw != nil {
				_ = raw.Close()
			}
			return nil
		}
		if err != nil {
			if !d.lack.Tell(d.server.env.Log, d.server.env.Now(), err) {
				d.server.env.Log.Warn("accept failed, will retry", "address", l.Addr().String(), "error", err)
			}
			_ = run.Sleep(ctx, acceptRetry) // an end closes the listener, and that is seen above
			continue
		}
		if d.server.turnsAway() {
			_ = raw.Close() // drained: the next of the client's list serves it
			continue
		}
		from := hostOf(raw.RemoteAddr())
		if !d.slots.take(from) {
			_ = raw.Close() // a flood: better none than all slow
			continue
		}
		d.tasks.Go(ctx, "connection", func(ctx context.Context) error { return d.take(ctx, raw, from, config) })
	}
}

// slots counts handshakes under way. A client gives up after connectLimit; when thousands come at once to a server that has
// little of its processor, none of many handshakes at once would end in time, and all that was done for them is lost. So
// there may be fewer of them while those of members take long.
type slots struct {
	mu     sync.Mutex // guards below
	all    int
	closed int            // of the places
	of     map[string]int // by the client's address
}

// ended notes how long a handshake took that ended well and was a member's: others may take long to do harm.
func (s *slots) ended(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch open := maxShaking - s.closed; {
	case took > shakesSlowly:
		s.closed = maxShaking - max(open*3/4, leastShaking)
	case took < shakesSlowly/2:
		s.closed = max(0, s.closed-1)
	}
}

func (s *slots) take(from string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxShaking-s.closed || s.of[from] == maxShakingOfOne {
		return false
	}
	s.all++
	s.of[from]++
	return true
}

func (s *slots) free(from string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.of[from]--; s.of[from] == 0 {
		delete(s.of, from)
	}
}

// hostOf is an address without its port.
func hostOf(a net.Addr) string {
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}

// take does the handshake and hands the connection on.
func (d *door) take(ctx context.Context, raw net.Conn, from string, config *tls.Config) error {
	began := time.Now()
	conn, p, err := d.shake(ctx, raw, config)
	d.slots.free(from)
	if err == nil && !p.ID.IsZero() {
		d.slots.ended(time.Since(began))
	}
	if err != nil {
		if ctx.Err() == nil && !isHangup(err) {
			d.server.env.Log.Warn("connection refused", "from", raw.RemoteAddr().String(), "reason", err.Error())
		}
		return nil
	}
	switch proto := conn.ConnectionState().NegotiatedProtocol; proto {
	case protoGRPC:
		d.grpc.now().queue.put(ctx, conn)
	case protoHTTP, "":
		d.http.put(ctx, conn)
	default:
		d.own(ctx, proto, conn, p)
	}
	return nil
}

func (d *door) shake(ctx context.Context, raw net.Conn, config *tls.Config) (*tls.Conn, identity.Peer, error) {
	run.SetUserTimeout(raw, userTimeout)
	noted := d.server.ledger.wrap(raw)
	conn := tls.Server(noted, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	var p identity.Peer
	if err == nil {
		p, err = d.server.ledger.admit(noted, conn.ConnectionState().PeerCertificates, d.server.keep.VerifyClient)
	}
	if err != nil {
		_ = noted.Close()
		return nil, identity.Peer{}, err
	}
	noted.slim(conn)
	return conn, p, nil
}

// own serves a protocol of ours. Raw protocols have no rules by method, so the peer must be somebody, and up to date.
func (d *door) own(ctx context.Context, proto string, conn *tls.Conn, p identity.Peer) {
	defer conn.Close()
	if p.ID.IsZero() || p.Expired {
		d.server.env.Log.Warn("connection refused", "from", conn.RemoteAddr().String(), "protocol", proto,
			"reason", "no certificate, or one that has run out")
		return
	}
	d.server.alpn[proto](ctx, conn, p)
}

// isHangup: a port scanner or a load balancer's probe, which says nothing and goes.
func isHangup(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// queue is a net.Listener of connections that have been accepted elsewhere.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), done: make(chan struct{})} }

func (q *queue) put(ctx context.Context, c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

// Accept waits for the next connection.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr is nobody's: the real listeners have theirs.
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }
