// Package server answers the CA's calls: who may have a certificate, and which join tokens are in force.
//
// It reads the cluster from a replica and writes by transactions whose preconditions repeat what the decision rests on (the
// token, the deny list, who was certified last), so that a replica that lags can delay an answer but never make it wrong.
// The credential is committed before the certificate leaves. It must never put a token or a key into an error or a log line.
// A Server is safe for concurrent use.
package server

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/peer"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/limit"
)

const (
	// joinBurst is how many seconds' join attempts of one address may come at once: a machine that is set up again and again.
	joinBurst = 5
	joinKnown = 4096
	// maxSkew is how far a joiner's clock may be from ours.
	maxSkew = 5 * time.Minute
	// tries bounds how often a call is decided again because the world changed meanwhile.
	tries = 8
	// settle bounds the wait for our own commit to come back, which the answer's directory profits from.
	settle = time.Second
)

// View is the replica of the cluster.
type View interface {
	Snapshot() *state.Snapshot
	WaitFor(ctx context.Context, v state.Version) error
}

// Committer writes to the store.
type Committer interface {
	Do(ctx context.Context, tx *storev1.Transaction) (*typesv1.Version, error)
}

// Trust is the bundle that this process itself believes; it is there before the store is.
type Trust interface {
	Bundle() []byte
}

// Parts are what a Server needs. All are required.
type Parts struct {
	Env    run.Env
	View   View
	Commit Committer
	Trust  Trust
	Keyset *keyset.Holder
	Issuer *issue.Issuer
	// JoinRate is how many join attempts a second one address has.
	JoinRate int
}

// Server implements CertificateService and TokenService.
type Server struct {
	cav1.UnimplementedCertificateServiceServer
	cav1.UnimplementedTokenServiceServer
	Parts

	joins *limit.Limiter
}

// New makes a server.
func New(parts Parts) *Server {
	return &Server{Parts: parts, joins: limit.New(float64(parts.JoinRate), joinBurst*parts.JoinRate, joinKnown)}
}

// snapshot is the cluster as the replica has it, once it has it.
func (s *Server) snapshot() (*state.Snapshot, error) {
	snap := s.View.Snapshot()
	if snap.Cluster() == nil {
		return nil, errs.New(errs.Unavailable, "this CA has not reached the store yet; try again")
	}
	return snap, nil
}

// keys is the keyset, once this process has it.
func (s *Server) keys() (*keyset.Keyset, error) {
	k := s.Keyset.Get()
	if k == nil {
		return nil, errs.New(errs.Unavailable, "this CA has no keyset yet: it waits for another CA to hand it over; try again, or ask another CA")
	}
	return k, nil
}

// decide calls f with the present snapshot and commits what it returns. If the world has changed meanwhile, it waits for the
// replica to show that, and calls f again. F returns what is wrong as an error.
func (s *Server) decide(ctx context.Context, what string, f func(*state.Snapshot) (*storev1.Transaction, error)) (*typesv1.Version, error) {
	for range tries {
		snap, err := s.snapshot()
		if err != nil {
			return nil, err
		}
		tx, err := f(snap)
		if err != nil {
			return nil, err
		}
		version, err := s.commit(ctx, tx)
		refusal := commit.RefusalOf(err)
		switch {
		case err == nil:
			return version, nil
		case refusal == nil:
			return nil, errs.New(errs.Unavailable, "%s: write it to the store: %w", what, err)
		case !changed(refusal.GetRefusal()):
			return nil, errs.New(errs.Internal, "%s: the store refused: %s", what, refusal.GetMessage())
		}
		if err := s.View.WaitFor(ctx, state.VersionOf(refusal.GetVersion())); err != nil {
			return nil, errs.New(errs.Unavailable, "%s: wait for the store: %w", what, err)
		}
	}
	return nil, errs.New(errs.Conflict, "%s: the cluster changed %d times meanwhile; try again", what, tries)
}

// commit is bounded: a caller with a longer patience shall hear that there is no quorum, not just its own deadline.
func (s *Server) commit(ctx context.Context, tx *storev1.Transaction) (*typesv1.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, commit.Timeout)
	defer cancel()
	return s.Commit.Do(ctx, tx)
}

// changed says that a transaction was refused because its decision rested on an older state.
func changed(r storev1.RefusalReason) bool {
	switch r {
	case storev1.RefusalReason_REFUSAL_REASON_CONFLICT, storev1.RefusalReason_REFUSAL_REASON_EXISTS,
		storev1.RefusalReason_REFUSAL_REASON_NOT_FOUND:
		return true
	default:
		return false
	}
}

// directory is who is where, with what version wrote if the replica shows it soon.
func (s *Server) directory(ctx context.Context, version *typesv1.Version) *cav1.Directory {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if err := s.View.WaitFor(ctx, state.VersionOf(version)); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		s.Env.Log.Debug("answering from an older directory", "error", err)
	}
	return directory.FromMembers(s.View.Snapshot().Members())
}

// notDenied makes the conditions that none of these entries is on the deny list when the transaction is applied.
func notDenied(entries ...string) []*storev1.Precondition {
	var out []*storev1.Precondition
	for _, e := range entries {
		out = append(out, commit.Unchanged(typesv1.Kind_KIND_DENIAL, e, 0))
	}
	return out
}

// putCredential records a certificate as its identity's current one.
func putCredential(snap *state.Snapshot, c *typesv1.Credential) *storev1.Put {
	put := commit.Put(state.Wrap(c), "serial", "public_key_hash", "not_after")
	put.Create = snap.Credential(c.GetMeta().GetId()) == nil
	return put
}

// addressOf is where a call comes from, as host:port; it has no meaning but for the limit and the audit.
func addressOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	return p.Addr.String()
}

// hostPorts joins each address of a machine with a port.
func hostPorts(addresses []string, port string) []string {
	var out []string
	for _, a := range addresses {
		out = append(out, net.JoinHostPort(a, port))
	}
	return out
}
