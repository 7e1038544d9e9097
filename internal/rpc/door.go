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
	grpc   *queue
	http   *queue
	slots  chan struct{} // one token a handshake under way
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
			d.server.env.Log.Warn("accept failed, will retry", "address", l.Addr().String(), "error", err)
			_ = run.Sleep(ctx, acceptRetry) // an end closes the listener, and that is seen above
			continue
		}
		select {
		case d.slots <- struct{}{}:
			d.tasks.Go(ctx, "connection", func(ctx context.Context) error { return d.take(ctx, raw, config) })
		default:
			_ = raw.Close() // a flood: better none than all slow
		}
	}
}

// take does the handshake and hands the connection on.
func (d *door) take(ctx context.Context, raw net.Conn, config *tls.Config) error {
	conn, p, err := d.shake(ctx, raw, config)
	<-d.slots
	if err != nil {
		if ctx.Err() == nil && !isHangup(err) {
			d.server.env.Log.Warn("connection refused", "from", raw.RemoteAddr().String(), "reason", err.Error())
		}
		return nil
	}
	switch proto := conn.ConnectionState().NegotiatedProtocol; proto {
	case protoGRPC:
		d.grpc.put(ctx, conn)
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
