package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// The connection settings: a peer that has vanished must be noticed, and another one asked, well before a machine counts as
// down (4 s). gRPC's own are too slow for that.
const (
	connectLimit = time.Second
	// patientLimit is what a person's client gives a handshake: there is no other gateway to ask, or all are as slow, and nothing
	// has been sent yet. Longer than a server waits for one.
	patientLimit  = 10 * time.Second
	redialFirst   = 50 * time.Millisecond
	redialMost    = time.Second
	clientTimeout = 2 * time.Second // TCP_USER_TIMEOUT
	// callLimit is the deadline of a unary call whose caller has set none.
	callLimit = 5 * time.Second
	// maxAnswer bounds what a server may send in one message. Requests are bounded by the server, at much less; a mesh
	// table of ten thousand machines and tasks is some 4 MiB, and has to be whole to be put in force at once.
	maxAnswer = 32 << 20
)

// Dial makes a client of a role: it spreads calls over the directory's members of it in turn, and follows its changes.
// Calls of methods that may be repeated are tried again on other members while they are Unavailable, until their deadline;
// a unary call without a deadline gets 5 s. It dials when the first call comes, and ends with Close.
func Dial(env run.Env, k *identity.Keeper, dir *directory.Directory, role authzv1.Role) (*grpc.ClientConn, error) {
	r := &memberResolver{env: env, ledger: newLedger(env, k), entries: func() [][]string { return addressesOf(dir, role) }, changed: dir.Changed}
	return newClient(env, k, r, []authzv1.Role{role}, identity.RoleName(role), clientCalls{wait: true}, connectLimit)
}

// DialAddress makes a client of one address (host:port), whose server must be of one of the roles. Calls that fail to
// connect fail at once.
func DialAddress(env run.Env, k *identity.Keeper, addr string, roles ...authzv1.Role) (*grpc.ClientConn, error) {
	r := &memberResolver{env: env, ledger: newLedger(env, k), entries: func() [][]string { return [][]string{{addr}} }}
	return newClient(env, k, r, roles, addr, clientCalls{}, connectLimit)
}

// DialForPeople makes a person's client of the members at some addresses: as Dial does of several, as DialAddress of a single
// one. An address that nobody is at fails as soon; but a server that is there and slow is given more time for its handshake.
func DialForPeople(env run.Env, k *identity.Keeper, role authzv1.Role, addrs ...string) (*grpc.ClientConn, error) {
	var entries [][]string
	for _, a := range addrs {
		entries = append(entries, []string{a})
	}
	r := &memberResolver{env: env, ledger: newLedger(env, k), entries: func() [][]string { return entries }}
	return newClient(env, k, r, []authzv1.Role{role}, identity.RoleName(role), clientCalls{wait: len(addrs) > 1}, patientLimit)
}

// DialTLS makes a client of one address with another trust than a Keeper's: that of a machine which joins.
func DialTLS(env run.Env, addr string, config *tls.Config) (*grpc.ClientConn, error) {
	r := &memberResolver{env: env, entries: func() [][]string { return [][]string{{addr}} }}
	return client(env, clientCredentials{config: config}, r, addr, clientCalls{env: env}, connectLimit)
}

func newClient(env run.Env, k *identity.Keeper, r *memberResolver, roles []authzv1.Role, name string, calls clientCalls, patience time.Duration) (*grpc.ClientConn, error) {
	if len(roles) == 0 {
		return nil, errs.New(errs.Internal, "dial %s: no role is wanted of the server", name)
	}
	creds := clientCredentials{config: k.ClientTLS(protoGRPC, roles...), ledger: r.ledger, verify: serverVerifier(k, roles)}
	calls.env, calls.keep = env, k
	return client(env, creds, r, name, calls, patience)
}

func client(env run.Env, creds clientCredentials, r resolver.Builder, name string, calls clientCalls, patience time.Duration) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(targetScheme+":///"+name,
		grpc.WithResolvers(r),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dialTCP(ctx, env, addr) }),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: redialFirst, Multiplier: 1.6, Jitter: 0.2, MaxDelay: redialMost},
			MinConnectTimeout: patience, // for the handshake as well
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: clientTimeout, PermitWithoutStream: true}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithIdleTimeout(0), // an idle client would lose its watch on the directory
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		grpc.WithDisableRetry(), // retries are ours: they know which methods may be repeated
		grpc.WithStatsHandler(newMeter(env, "client", nil)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithChainUnaryInterceptor(errs.UnaryClient(), calls.unary),
		grpc.WithChainStreamInterceptor(errs.StreamClient(), calls.stream),
	)
	if err != nil {
		return nil, errs.New(errs.Invalid, "dial %s: %w", name, err)
	}
	return conn, nil
}

func dialTCP(ctx context.Context, env run.Env, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	conn, err := env.Net.Dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	run.SetUserTimeout(conn, clientTimeout)
	return conn, nil
}

func addressesOf(dir *directory.Directory, role authzv1.Role) [][]string {
	var out [][]string
	for _, e := range dir.Entries(role) {
		out = append(out, e.GetAddresses())
	}
	return out
}
