package process

import (
	"context"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// View is the replica of a control process. It must hold the kinds cluster, member and denial.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Follow keeps trust, grace, directory and Drain as the store has them, until ctx ends. If the view has a Health, as a Replica
// has, the process's health says whether it follows the store.
func (p *Process) Follow(ctx context.Context, view View) error {
	v, ok := view.(interface{ Health() error })
	if !ok {
		return p.follow(ctx, view)
	}
	g := run.NewGroup(p.Env.Log)
	g.Go("objects", func(ctx context.Context) error { return p.follow(ctx, view) })
	g.Go("health", func(ctx context.Context) error { return p.watchStore(ctx, view, v.Health) })
	return g.Wait(ctx)
}

// follow looks at most at every change of a kind that it needs: most revisions are about tasks.
func (p *Process) follow(ctx context.Context, view View) error {
	var trust, members mark
	for {
		changed := view.Changed()
		if s := view.Snapshot(); s.Cluster() != nil {
			if trust.moved(s, typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_DENIAL) {
				p.Keeper.SetTrust(s.Cluster().GetAuthority().GetBundle(), s.DeniedList())
				if grace := s.Cluster().GetSpec().GetCertificateGrace(); grace != nil {
					p.Keeper.SetGrace(grace.AsDuration())
				}
			}
			if members.moved(s, typesv1.Kind_KIND_MEMBER) {
				if err := p.Directory.Set(directory.FromMembers(s.Members())); err != nil {
					// It is in force; only a restart would begin from an older one.
					p.Env.Log.Warn("directory is not kept", "error", err)
				}
				p.Drain.set(s.Member(p.ID.Member()).GetSpec().GetDrain())
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// mark is the last change of some kinds that was seen.
type mark struct{ at state.Version }

// moved reports whether objects of the kinds have changed since it was asked last. The first time they have.
func (m *mark) moved(s *state.Snapshot, kinds ...typesv1.Kind) bool {
	at := s.Version()
	at.Revision = s.ChangedAt(kinds...)
	if at == m.at {
		return false
	}
	m.at = at
	return true
}
