package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// sweepLook bounds one wait of the sweep, so that a clock that was set meanwhile is noticed.
const sweepLook = 10 * time.Minute

// verify looks at a peer's chain as its handshake did: Keeper.VerifyClient or VerifyServer.
type verify func(chain []*x509.Certificate) (identity.Peer, error)

// ledger has what is open: the connections, with their peers, and the calls that are being served. When rights change it ends what has lost
// them. Servers and clients have one each.
type ledger struct {
	env  run.Env
	keep *identity.Keeper

	mu    sync.Mutex // guards the maps, served and early
	conns map[*conn]struct{}
	calls map[*call]struct{}
	// served counts the calls that have come.
	served uint64
	early  chan struct{} // has a token when a connection runs out before the sweep's next look
	// blank stands in TLS for leaves that are kept here.
	blank *x509.Certificate
	// issuers are those of open connections, each once: a server's TLS parses them anew for each client.
	issuers map[string]weak.Pointer[x509.Certificate]
}

// conn is one open connection: the raw one, below TLS. It leaves the ledger when it is closed.
type conn struct {
	net.Conn
	ledger *ledger
	closed bool                // guarded by the ledger's lock, as Conn is once it is admitted
	chain  []*x509.Certificate // empty: no certificate
	leaf   []byte              // then the chain has its issuers alone: see slim
	peer   identity.Peer
	verify verify
	// late says that this side showed a certificate that had run out: the server goes by it for as long as the connection
	// lives, also after a renewal. A client's alone.
	late bool
}

// call is one call that is being served.
type call struct {
	caller Caller
	stream bool
	end    context.CancelCauseFunc
}

func newLedger(env run.Env, keep *identity.Keeper) *ledger {
	return &ledger{env: env, keep: keep, conns: map[*conn]struct{}{}, calls: map[*call]struct{}{}, early: make(chan struct{}, 1), blank: new(x509.Certificate), issuers: map[string]weak.Pointer[x509.Certificate]{}}
}

// wrap makes a conn that is not in the ledger yet.
func (l *ledger) wrap(raw net.Conn) *conn { return &conn{Conn: raw, ledger: l} }

// Close leaves the ledger.
func (c *conn) Close() error {
	c.ledger.mu.Lock()
	delete(c.ledger.conns, c)
	c.closed = true
	raw := c.Conn
	c.ledger.mu.Unlock()
	return raw.Close()
}

// Exchange puts another connection below TLS, for who serves a protocol of its own and carries it by its own means: the ledger closes
// what is there then. One that was closed stays as it is. While with runs nobody may read or write.
func (c *conn) Exchange(with func(raw net.Conn) net.Conn) {
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	if !c.closed {
		c.Conn = with(c.Conn)
	}
}

// SetUserTimeout is run.SetUserTimeout of the connection below: who serves a protocol of its own gets this one from TLS, and may have
// another patience than the door.
func (c *conn) SetUserTimeout(d time.Duration) { run.SetUserTimeout(c.Conn, d) }

// admit notes a connection after its handshake and looks at it once more: the trust may have changed between the
// handshake and this moment, when no sweep could see it.
func (l *ledger) admit(c *conn, chain []*x509.Certificate, v verify) (identity.Peer, error) {
	// A slice of our own: slim writes into TLS's, whatever a sweep reads meanwhile.
	c.chain, c.verify = slices.Clone(chain), v
	l.mu.Lock()
	l.conns[c] = struct{}{}
	l.mu.Unlock()
	if len(chain) == 0 {
		return identity.Peer{}, nil
	}
	p, err := v(chain)
	if err != nil {
		return identity.Peer{}, err
	}
	l.mu.Lock()
	c.peer = p
	l.mu.Unlock()
	if !p.Expired && p.NotAfter.Sub(l.env.Now()) < sweepLook {
		select {
		case l.early <- struct{}{}:
		default:
		}
	}
	return p, nil
}

// slim has an open connection forget what its peer's leaf says, and keep the leaf as it came: parsed it takes ten times as much
// memory, for as long as the connection lasts, of which a server has thousands. A sweep parses it again. Its issuers are the same
// for thousands of peers, and are kept once.
func (c *conn) slim(over *tls.Conn) {
	// TLS keeps the chain for whoever asks; what we get is its own slice.
	chain := over.ConnectionState().PeerCertificates
	if len(chain) == 0 {
		return
	}
	leaf := bytes.Clone(chain[0].Raw)
	chain[0] = c.ledger.blank
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	for i := range chain[1:] {
		chain[i+1] = c.ledger.issuer(chain[i+1])
	}
	c.chain, c.leaf = slices.Clone(chain[1:]), leaf
}

// issuer is the one that is kept of equal issuers. Its caller holds the ledger's mutex.
func (l *ledger) issuer(same *x509.Certificate) *x509.Certificate {
	if kept := l.issuers[string(same.Raw)].Value(); kept != nil {
		return kept
	}
	// Those that nobody uses any more go when another comes, which is at a rotation.
	maps.DeleteFunc(l.issuers, func(_ string, p weak.Pointer[x509.Certificate]) bool { return p.Value() == nil })
	l.issuers[string(same.Raw)] = weak.Make(same)
	return same
}

// look looks at the peer as its handshake did.
func (c *conn) look() (identity.Peer, error) {
	c.ledger.mu.Lock()
	chain, raw := c.chain, c.leaf
	c.ledger.mu.Unlock()
	if raw == nil {
		return c.verify(chain)
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return identity.Peer{}, errs.New(errs.Denied, "the certificate can't be read any more: %w", err)
	}
	return c.verify(append([]*x509.Certificate{leaf}, chain...))
}

// peerOfConn is the peer of a connection that a Server has taken in; zero without a certificate.
func peerOfConn(raw net.Conn) identity.Peer {
	t, ok := raw.(*tls.Conn)
	if !ok {
		return identity.Peer{}
	}
	c, ok := t.NetConn().(*conn)
	if !ok {
		return identity.Peer{}
	}
	c.ledger.mu.Lock()
	defer c.ledger.mu.Unlock()
	return c.peer
}

// run ends what loses its rights, until ctx ends: at each change of trust, and when a certificate runs out.
func (l *ledger) run(ctx context.Context) error {
	for {
		changed, replaced := l.keep.Trust(), l.keep.Replaced()
		timer := time.NewTimer(l.sweep())
		select {
		case <-changed:
		case <-replaced:
		case <-l.early:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// sweep looks at everything open and says when to look again.
func (l *ledger) sweep() time.Duration {
	next := sweepLook
	for c, before := range l.peers() {
		now, err := c.look()
		switch {
		case err != nil:
			l.env.Log.Info("connection closed, its peer has lost its rights", "peer", before.ID.Member(), "reason", err.Error())
		case now.Expired && !before.Expired:
			// It may come back with its new certificate, or with this one to renew it.
			l.env.Log.Info("connection closed, its certificate has run out", "peer", before.ID.Member(), "not_after", before.NotAfter)
		case c.late && !l.keep.Expired():
			l.env.Log.Info("connection closed, it was made before our certificate was renewed", "peer", before.ID.Member())
		default:
			if !now.Expired {
				next = min(next, now.NotAfter.Sub(l.env.Now())+time.Millisecond)
			}
			continue
		}
		// Below TLS, at once: a farewell to a peer that does not read could block.
		_ = c.Close()
	}
	for _, c := range l.openCalls() {
		if l.keep.Denied(c.caller.Principal.Member()) {
			l.env.Log.Info("call ended, its principal has lost its rights", "principal", c.caller.Principal.Member())
			c.end(errs.New(errs.Denied, "%s has been removed from the cluster", c.caller.Principal))
		}
	}
	return max(next, time.Millisecond)
}

// peers is a copy, because verifying takes long and needs no lock.
func (l *ledger) peers() map[*conn]identity.Peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[*conn]identity.Peer, len(l.conns))
	for c := range l.conns {
		if !c.peer.ID.IsZero() {
			out[c] = c.peer
		}
	}
	return out
}

func (l *ledger) openCalls() []*call {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*call, 0, len(l.calls))
	for c := range l.calls {
		out = append(out, c)
	}
	return out
}

// open notes a call that is being served; the context ends, with the reason as its cause, when the caller's rights end.
func (l *ledger) open(ctx context.Context, caller Caller, stream bool) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &call{caller: caller, stream: stream, end: cancel}
	l.mu.Lock()
	l.calls[c] = struct{}{}
	l.served++
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		delete(l.calls, c)
		l.mu.Unlock()
		cancel(nil)
	}
}

// endStreams tells all streams to end: the process stops.
func (l *ledger) endStreams(cause error) {
	for _, c := range l.openCalls() {
		if c.stream {
			c.end(cause)
		}
	}
}

// unary is how many calls that are no streams are being served.
func (l *ledger) unary() int {
	n := 0
	for _, c := range l.openCalls() {
		if !c.stream {
			n++
		}
	}
	return n
}

// closeAll closes every connection.
func (l *ledger) closeAll() {
	l.mu.Lock()
	all := make([]*conn, 0, len(l.conns))
	for c := range l.conns {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}
