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

// Follow keeps trust, grace and directory as the store has them, until ctx ends.
func (p *Process) Follow(ctx context.Context, view View) error {
	for {
		changed := view.Changed()
		if s := view.Snapshot(); s.Cluster() != nil {
			p.Keeper.SetTrust(s.Cluster().GetAuthority().GetBundle(), s.DeniedList())
			if grace := s.Cluster().GetSpec().GetCertificateGrace(); grace != nil {
				p.Keeper.SetGrace(grace.AsDuration())
			}
			p.Directory.Set(directory.FromMembers(s.Members()))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

const (
	announceRetry = time.Second
	defaultWeight = 10
)

// Announce keeps this process's Member as it is, until ctx ends: it writes it when the store holds another one.
func (p *Process) Announce(ctx context.Context, view View, c *commit.Committer) error {
	want := p.member()
	fields := []string{"role", "machine_id", "addresses", "version", "feature_level", "weight"}
	for {
		changed := view.Changed()
		s := view.Snapshot()
		if s.Cluster() != nil && !announced(s.Member(p.ID.Member()), want) {
			put := commit.Put(state.Wrap(want), fields...)
			put.Create = s.Member(p.ID.Member()) == nil
			_, err := c.Do(ctx, &storev1.Transaction{Puts: []*storev1.Put{put}})
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
