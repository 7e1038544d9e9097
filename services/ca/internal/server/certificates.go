package server

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// GetRoot returns the trust bundle. It needs no store: it is the bundle that this process itself believes.
func (s *Server) GetRoot(context.Context, *cav1.GetRootRequest) (*cav1.GetRootResponse, error) {
	return &cav1.GetRootResponse{Bundle: s.Trust.Bundle(), Now: timestamppb.New(s.Env.Now())}, nil
}

// Renew makes the next certificate of the caller's identity.
func (s *Server) Renew(ctx context.Context, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	caller, ok := rpc.CallerOf(ctx)
	if !ok || caller.Principal.Name == "" || len(caller.Via) > 0 {
		return nil, errs.New(errs.Denied, "renewal is for those who call with their own certificate")
	}
	resp, err := s.renew(ctx, caller.Principal, req)
	if err != nil {
		s.Issuer.AuditRefused(ctx, "Renew", err, "id", caller.Principal.URI(), "from", addressOf(ctx))
	}
	return resp, err
}

func (s *Server) renew(ctx context.Context, id identity.ID, req *cav1.RenewRequest) (*cav1.RenewResponse, error) {
	old, _ := rpc.PeerOf(ctx)
	var issued issue.Issued
	var bundle []byte
	version, err := s.decide(ctx, "renew the certificate of "+id.Member(), func(snap *state.Snapshot) (*storev1.Transaction, error) {
		// Step 1: the identity may have been removed since the handshake.
		entries := []string{id.Member()}
		if old.Serial != "" {
			entries = append(entries, old.Serial)
		}
		for _, e := range entries {
			if d := snap.Denial(e); d != nil {
				return nil, errs.New(errs.Denied, "%s has been removed from the cluster: %s", e, d.GetReason())
			}
		}
		if at := removedAt(snap, id); old.NotBefore.Before(at) {
			return nil, errs.New(errs.Denied, "%s was removed from the cluster at %s; join again", id.Member(), stamp(at))
		}
		// Step 2: sign, with the names that the store has now.
		var err error
		if issued, err = s.Issuer.Issue(leafOf(snap, id, req.GetCsr()), s.authority(snap)); err != nil {
			return nil, err
		}
		bundle = snap.Cluster().GetAuthority().GetBundle()
		// Step 3: the record goes first; only then the certificate leaves.
		return &storev1.Transaction{
			// A removal that comes in between takes the credential away.
			Preconditions: append(notDenied(entries...), commit.Unchanged(typesv1.Kind_KIND_CREDENTIAL, id.Member(),
				snap.Credential(id.Member()).GetMeta().GetRevision())),
			Puts: []*storev1.Put{putCredential(snap, issued.Credential)},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	s.Issuer.AuditIssued(ctx, "renewal", issued, "old_serial", old.Serial, "expired", old.Expired, "from", addressOf(ctx), "version", req.GetVersion())
	return &cav1.RenewResponse{Chain: issued.Chain, Bundle: bundle, Directory: s.directory(ctx, version)}, nil
}

// leafOf is what the next certificate of an identity shall be.
func leafOf(snap *state.Snapshot, id identity.ID, csr []byte) root.Leaf {
	leaf := root.Leaf{ID: id, CSR: csr, Life: issue.Life(snap.Cluster().GetSpec(), id.Role), NotBefore: removedAt(snap, id)}
	if !identity.IsPerson(id.Role) {
		m := snap.Member(id.Member())
		hostname := cmp.Or(snap.Node(id.Name).GetIdentity().GetHostname(), m.GetHostname())
		leaf.Hosts = issue.HostsOf(id.Role, m.GetAddresses(), hostname)
	}
	return leaf
}

// removedAt is until when certificates of the identity are refused, because it was removed; zero if it never was.
func removedAt(snap *state.Snapshot, id identity.ID) time.Time {
	var entries []string
	for d := range snap.Removals(id.Member()) {
		entries = append(entries, d.GetMeta().GetId())
	}
	return identity.Removed(entries, id.Member())
}

// authority opens the root for people's certificates; nil when its key was taken out of the cluster.
func (s *Server) authority(snap *state.Snapshot) func() (*root.Signer, error) {
	a := snap.Cluster().GetAuthority()
	if len(a.GetRootKey().GetData()) == 0 {
		return nil
	}
	return func() (*root.Signer, error) {
		k, err := s.keys()
		if err != nil {
			return nil, err
		}
		return issue.Authority(k, a)
	}
}
