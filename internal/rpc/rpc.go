// Package rpc is how our processes call each other: gRPC over mutual TLS 1.3, one port for gRPC, HTTP and raw protocols.
//
// It owns, on the server: the handshake with its limit, the choice by ALPN, who the caller is (also of a call that a
// gateway or a store passes on), the check of every method's rule, panic capture, limits, metrics, and the end of what a
// peer has open when its rights end. On the client: finding members in the directory, short time-outs, retries.
//
// It must never know a service: rules come from the protos (internal/authz), trust from internal/identity. Everything
// exported is safe for concurrent use; every goroutine ends with Serve's context or with the ClientConn's Close.
package rpc

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/authz"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

// callerKey is the metadata of a call that is passed on: the principal's URI, then those of the members it has come
// through before, separated by blanks. The member that passes it on is not in it: the receiver takes that from the
// certificate.
const callerKey = "shoal-caller"

// maxVia bounds the members that a call comes through: a gateway and two stores, and one to spare.
const maxVia = 4

// Caller is who stands behind a call.
type Caller = authz.Caller

type callerCtx struct{}

// CallerOf is the verified caller of the call that is being served.
func CallerOf(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerCtx{}).(Caller)
	return c, ok
}

// WithCaller makes a context as a server's handler gets it. It is for handlers that call each other inside a process, and
// for tests; it grants nothing on any other machine.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerCtx{}, c)
}

// Forward makes the context of an outgoing call for somebody else. Self is this process. A call of one's own is left
// without metadata. Only peers that the method's forwarded_by names may pass calls on; the server refuses all others.
func Forward(ctx context.Context, c Caller, self identity.ID) context.Context {
	if c.Principal == self && len(c.Via) == 0 {
		return ctx
	}
	uris := []string{c.Principal.URI()}
	for _, v := range c.Via {
		uris = append(uris, v.URI())
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Set(callerKey, strings.Join(uris, " "))
	return metadata.NewOutgoingContext(ctx, md)
}

// callerOf makes the caller from the peer's certificate and the call's metadata. Anything in the metadata that is not as
// Forward makes it is refused, never ignored: a call that claims to be somebody's must not run as somebody else's.
func callerOf(ctx context.Context, p identity.Peer) (Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(callerKey)
	if len(values) == 0 {
		return Caller{Principal: orAnonymous(p.ID)}, nil
	}
	if p.ID.IsZero() {
		return Caller{}, errs.New(errs.Denied, "a caller without a certificate passes on a call for somebody else")
	}
	uris := strings.Split(values[0], " ")
	if len(values) > 1 || len(uris) > maxVia {
		return Caller{}, errs.New(errs.Denied, "%s passes on a call with a malformed caller", p.ID)
	}
	var c Caller
	for i, uri := range uris {
		id, err := identity.Parse(uri)
		if err != nil {
			return Caller{}, errs.New(errs.Denied, "%s passes on a call with a malformed caller: %w", p.ID, err)
		}
		if i == 0 {
			c.Principal = id
		} else {
			c.Via = append(c.Via, id)
		}
	}
	c.Via = append(c.Via, p.ID)
	return c, nil
}

func orAnonymous(id identity.ID) identity.ID {
	if id.IsZero() {
		return identity.ID{Role: authzv1.Role_ROLE_ANONYMOUS}
	}
	return id
}

// PeerOf is the other end of the connection of a call that is being served, or of a call made (grpc.Peer gives its
// context). It is false for a client without a certificate.
func PeerOf(ctx context.Context) (identity.Peer, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Peer{}, false
	}
	return peerOfInfo(p)
}

func peerOfInfo(p *peer.Peer) (identity.Peer, bool) {
	info, ok := p.AuthInfo.(authInfo)
	if !ok || info.peer.ID.IsZero() {
		return identity.Peer{}, false
	}
	return info.peer, true
}
