package process

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// View is the replica of a control process. It must hold the kinds cluster, member and denial.
type View interface {
	Snapshot() *state.Snapshot
	Changed() <-chan struct{}
}

// Follow keeps trust, grace and directory as the store has them, until ctx ends. If the view has a Health, as a Replica
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

const (
	announceRetry = time.Second
	defaultWeight = 10
)

// Announce keeps this process's Member as it is, until ctx ends: it writes it when the store holds another one.
func (p *Process) Announce(ctx context.Context, view View, c *commit.Committer) error {
	want := p.member()
	var written state.Version // of the last announcement, which the view may not hold yet
	for {
		changed := view.Changed()
		s := view.Snapshot()
		waits := written.SameEpoch(s.Version()) && !s.Version().Reaches(written)
		if s.Cluster() != nil && !waits && !announced(s.Member(p.ID.Member()), want) {
			at, err := c.Do(ctx, announcement(s, want))
			if err == nil || commit.RefusalOf(err) != nil {
				written = state.VersionOf(at) // refused: by somebody's write that the view does not hold yet
			}
			if err != nil && ctx.Err() == nil {
				p.Env.Log.Warn("not announced, trying again", "error", err)
				if run.Sleep(ctx, announceRetry) != nil {
					return nil
				}
				continue
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// announcement leaves the fields alone that others, or other parts of this process, write.
func announcement(s *state.Snapshot, want *typesv1.Member) *storev1.Transaction {
	put := commit.Put(state.Wrap(want), "role", "machine_id", "addresses", "version", "feature_level", "weight")
	put.Create = s.Member(want.GetMeta().GetId()) == nil
	return &storev1.Transaction{Puts: []*storev1.Put{put}}
}

func (p *Process) member() *typesv1.Member {
	return &typesv1.Member{
		Meta:         &typesv1.Meta{Id: p.ID.Member()},
		Role:         p.ID.Role,
		MachineId:    p.ID.Name,
		Addresses:    p.Addresses(),
		Version:      run.Version(),
		FeatureLevel: FeatureLevel,
		Weight:       defaultWeight,
	}
}

func announced(has, want *typesv1.Member) bool {
	if has == nil {
		return false
	}
	own := &typesv1.Member{
		Meta: want.GetMeta(), Role: has.GetRole(), MachineId: has.GetMachineId(), Addresses: has.GetAddresses(),
		Version: has.GetVersion(), FeatureLevel: has.GetFeatureLevel(), Weight: has.GetWeight(),
	}
	return proto.Equal(own, want)
}
