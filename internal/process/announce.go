package process

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	announceRetry = time.Second
	defaultWeight = 10
	// reportEvery is how often a process says how it is when nothing has changed: three of them missed, and it counts as
	// silent. A handful of processes write this seldom, so it costs the store next to nothing.
	reportEvery = 15 * time.Second
	// reportPause is the least time between two reports of something new.
	reportPause = time.Second
	// loadPause is the same of another load, which nobody acts on.
	loadPause = 5 * time.Second
)

// Announce keeps this process's Member as it is, until ctx ends: what it is at once, how it is with pauses.
func (p *Process) Announce(ctx context.Context, view View, c *commit.Committer) error {
	a := &announcer{process: p, view: view, commit: c}
	for {
		changed, well, drain := view.Changed(), p.Server.Health().Changed(), p.Drain.Changed()
		wait, err := a.step(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			p.Env.Log.Warn("not announced, trying again", "error", err)
			if run.Sleep(ctx, announceRetry) != nil {
				return nil
			}
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
		case <-well:
		case <-drain:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// announcer is one process's announcement. It has one caller.
type announcer struct {
	process *Process
	view    View
	commit  *commit.Committer

	written  state.Version // of the last announcement, which the view may not hold yet
	reported time.Time     // when the last report was written; zero before
}

// step writes what is due and says when to look again.
func (a *announcer) step(ctx context.Context) (time.Duration, error) {
	s := a.view.Snapshot()
	if s.Cluster() == nil || (a.written.SameEpoch(s.Version()) && !s.Version().Reaches(a.written)) {
		return reportEvery, nil // a change of the view comes first
	}
	has, want := s.Member(a.process.ID.Member()), a.process.member()
	fields := []string{"role", "machine_id", "addresses", "version", "feature_level", "weight", "status"}
	if announced(has, want) {
		if wait := a.due(has.GetStatus(), want.GetStatus()); wait > 0 {
			return wait, nil
		}
		fields = []string{"status"}
	}
	put := commit.Put(state.Wrap(want), fields...) // fields that others, or other parts of this process, write are left alone
	put.Create = has == nil
	at, err := a.commit.Do(ctx, &storev1.Transaction{Puts: []*storev1.Put{put}})
	if err == nil || commit.RefusalOf(err) != nil {
		a.written = state.VersionOf(at) // refused: by somebody's write that the view does not hold yet
	}
	if err == nil {
		a.reported = time.Now()
	}
	return reportEvery, err
}

// due is how long to wait before saying how the process is; 0 is now.
func (a *announcer) due(has, want *typesv1.MemberStatus) time.Duration {
	if has == nil || a.reported.IsZero() {
		return 0
	}
	every := reportEvery
	draining := a.process.Drain.Wanted() && has.GetLoad() != want.GetLoad()
	switch {
	case !slices.Equal(has.GetWaits(), want.GetWaits()) || has.GetDrained() != want.GetDrained() || draining:
		every = reportPause
	case a.process.Drain.Wanted() && !want.GetDrained():
		return reportPause // nobody tells when the last one has gone: look
	case has.GetLoad() != want.GetLoad():
		every = loadPause
	}
	return max(every-time.Since(a.reported), 0)
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
		Status:       p.Status(),
	}
}

// announced reports whether the store has what the process is; how it is is another matter.
func announced(has, want *typesv1.Member) bool {
	if has == nil {
		return false
	}
	own := &typesv1.Member{
		Meta: want.GetMeta(), Role: has.GetRole(), MachineId: has.GetMachineId(), Addresses: has.GetAddresses(),
		Version: has.GetVersion(), FeatureLevel: has.GetFeatureLevel(), Weight: has.GetWeight(), Status: want.GetStatus(),
	}
	return proto.Equal(own, want)
}
