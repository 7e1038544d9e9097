package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"google.golang.org/grpc/credentials"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
)

const (
	protoGRPC = "h2"
	protoHTTP = "http/1.1"
)

// authInfo is what gRPC carries with each call about the connection.
type authInfo struct {
	credentials.CommonAuthInfo
	peer identity.Peer // zero: no certificate
}

// AuthType is TLS.
func (authInfo) AuthType() string { return "tls" }

func newAuthInfo(p identity.Peer) authInfo {
	return authInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, peer: p}
}

// serverCredentials hands over connections whose handshake the Server has done already.
type serverCredentials struct{ server *Server }

func (serverCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errs.New(errs.Internal, "these credentials are a server's")
}

func (c serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return raw, newAuthInfo(peerOfConn(raw)), nil
}

func (serverCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c serverCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName does nothing: names are not looked at.
func (serverCredentials) OverrideServerName(string) error { return nil }

// clientCredentials does a client's handshakes, and keeps the connections in the ledger if there is one.
type clientCredentials struct {
	config *tls.Config
	ledger *ledger // nil for a client without an identity
	verify verify
}

func (c clientCredentials) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if c.ledger == nil {
		conn, err := shake(ctx, raw, c.config)
		if err != nil {
			return nil, nil, err
		}
		return conn, newAuthInfo(identity.Peer{}), nil
	}
	noted := c.ledger.wrap(raw)
	noted.late = c.ledger.keep.Expired()
	conn, err := shake(ctx, noted, c.config)
	if err != nil {
		return nil, nil, err
	}
	p, err := c.ledger.admit(noted, conn.ConnectionState().PeerCertificates, c.verify)
	if err != nil {
		_ = noted.Close()
		return nil, nil, errs.New(errs.Unavailable, "%s", err.Error())
	}
	return conn, newAuthInfo(p), nil
}

// shake does the handshake and insists on HTTP/2, which an attacker between could else talk us out of.
func shake(ctx context.Context, raw net.Conn, config *tls.Config) (*tls.Conn, error) {
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		// Unavailable, whatever it says: another member, or this one with its next certificate, may be believed.
		return nil, errs.New(errs.Unavailable, "%s", err.Error())
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != protoGRPC {
		_ = raw.Close()
		return nil, errs.New(errs.Unavailable, "the server speaks %q, not gRPC", got)
	}
	return conn, nil
}

func (clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errs.New(errs.Internal, "these credentials are a client's")
}

func (clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (c clientCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName does nothing: names are not looked at.
func (clientCredentials) OverrideServerName(string) error { return nil }

// serverVerifier is how a client looks at a server of one of the roles.
func serverVerifier(k *identity.Keeper, roles []authzv1.Role) verify {
	return func(chain []*x509.Certificate) (identity.Peer, error) { return k.VerifyServer(chain, roles...) }
}
