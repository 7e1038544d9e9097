package server

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/token"
)

// GetJoinToken returns the token in force.
func (s *Server) GetJoinToken(_ context.Context, req *cav1.GetJoinTokenRequest) (*cav1.GetJoinTokenResponse, error) {
	snap, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	t, err := s.show(snap.Cluster(), req.GetRole())
	if err != nil {
		return nil, err
	}
	return &cav1.GetJoinTokenResponse{Token: t.String(), Addresses: joinAddresses(snap)}, nil
}

// RotateJoinToken makes a new token. Every CA refuses the old one from the commit on: each join repeats in its transaction
// that the cluster object, and so the token, has not changed.
func (s *Server) RotateJoinToken(ctx context.Context, req *cav1.RotateJoinTokenRequest) (*cav1.RotateJoinTokenResponse, error) {
	var next *typesv1.Cluster
	if err := validKind(req.GetRole()); err != nil {
		return nil, err
	}
	version, err := s.decide(ctx, "rotate the join token", func(snap *state.Snapshot) (*storev1.Transaction, error) {
		k, err := s.keys()
		if err != nil {
			return nil, err
		}
		old := snap.Cluster()
		record, err := token.New(k, req.GetRole(), token.Of(old.GetTokens(), req.GetRole()).GetCounter()+1, s.Env.Now())
		if err != nil {
			return nil, err
		}
		tokens := proto.CloneOf(old.GetTokens())
		if tokens == nil {
			tokens = &typesv1.JoinTokens{}
		}
		if req.GetRole() == typesv1.NodeRole_NODE_ROLE_MANAGER {
			tokens.Manager = record
		} else {
			tokens.Worker = record
		}
		next = &typesv1.Cluster{Meta: &typesv1.Meta{Id: old.GetMeta().GetId()}, Tokens: tokens, Authority: old.GetAuthority()}
		return &storev1.Transaction{
			Preconditions: []*storev1.Precondition{clusterUnchanged(old)},
			Puts:          []*storev1.Put{commit.Put(state.Wrap(next), "tokens")},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	// Whoever holds the new token may come to this very CA.
	s.directory(ctx, version)
	caller, _ := rpc.CallerOf(ctx)
	s.Issuer.Audit(ctx, "token rotation", "kind", req.GetRole().String(), "by", caller.Principal.Member())
	t, err := s.show(next, req.GetRole())
	if err != nil {
		return nil, err
	}
	return &cav1.RotateJoinTokenResponse{Token: t.String(), Addresses: joinAddresses(s.View.Snapshot())}, nil
}

func (s *Server) show(c *typesv1.Cluster, kind typesv1.NodeRole) (enroll.Token, error) {
	if err := validKind(kind); err != nil {
		return enroll.Token{}, err
	}
	k, err := s.keys()
	if err != nil {
		return enroll.Token{}, err
	}
	roots, err := identity.DecodeCertificates(c.GetAuthority().GetBundle())
	if err != nil {
		return enroll.Token{}, errs.New(errs.Internal, "the cluster's trust bundle: %w", err)
	}
	return token.Show(k, kind, c.GetTokens(), roots[0].Raw)
}

func validKind(kind typesv1.NodeRole) error {
	if kind != typesv1.NodeRole_NODE_ROLE_WORKER && kind != typesv1.NodeRole_NODE_ROLE_MANAGER {
		return errs.Faults("join token", errs.Fault{Field: "role", Reason: "is neither worker nor manager"})
	}
	return nil
}

// joinAddresses is where to join: every CA's addresses.
func joinAddresses(snap *state.Snapshot) []string {
	var out []string
	for m := range snap.MembersOfRole(authzv1.Role_ROLE_CA) {
		out = append(out, m.GetAddresses()...)
	}
	return out
}

func clusterUnchanged(c *typesv1.Cluster) *storev1.Precondition {
	return commit.Unchanged(typesv1.Kind_KIND_CLUSTER, c.GetMeta().GetId(), c.GetMeta().GetRevision())
}
