package liveness

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	// lot is how many machines share a commit when many vanish at once; the store takes 1000 puts.
	lot          = 200
	writeTimeout = time.Second
)

// write sets machines' states, each on condition that its session and its object have not moved: a machine that has
// meanwhile reached another dispatcher wins, and a description that has meanwhile been written is not lost. What is refused
// is judged again at a later tick. With thousands it takes seconds: whoever has been heard by then is left out.
func (m *Monitor) write(ctx context.Context, s *state.Snapshot, changes []change) error {
	var failed error
	var last *typesv1.Version
	for some := range slices.Chunk(changes, lot) {
		some = m.stillTrue(some, time.Now())
		at, err := m.writeLot(ctx, s, some)
		if err != nil {
			failed = errors.Join(failed, err)
		} else if at != nil {
			last = at
		}
	}
	if last == nil {
		return failed
	}
	// Judge again only what this has led to; the wait is short, and its end is no error of the write.
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	_ = m.view.WaitFor(ctx, state.VersionOf(last))
	return failed
}

// stillTrue leaves out who has been heard, or has another object, since it was judged.
func (m *Monitor) stillTrue(changes []change, now time.Time) (out []change) {
	s := m.view.Snapshot()
	for _, c := range changes {
		id := c.node.GetMeta().GetId()
		if s.Node(id).GetMeta().GetRevision() != c.node.GetMeta().GetRevision() {
			continue
		}
		silence, here := m.table.Of(id, now)
		if here && c.state != typesv1.NodeState_NODE_STATE_READY && silence.For < m.patience(silence) {
			continue
		}
		out = append(out, c)
	}
	return out
}

// writeLot takes out whoever stands in the way, and tries the rest again. It returns no version if nobody is left.
func (m *Monitor) writeLot(ctx context.Context, s *state.Snapshot, changes []change) (*typesv1.Version, error) {
	for len(changes) > 0 {
		at, err := m.commitOnce(ctx, s, changes)
		if err == nil {
			m.told(changes)
			return at, nil
		}
		refusal := commit.RefusalOf(err)
		rest := slices.DeleteFunc(slices.Clone(changes), func(c change) bool {
			return c.node.GetMeta().GetId() == refusal.GetSubject().GetId()
		})
		if refusal == nil || len(rest) == len(changes) {
			return nil, err
		}
		changes = rest
	}
	return nil, nil
}

func (m *Monitor) commitOnce(ctx context.Context, s *state.Snapshot, changes []change) (*typesv1.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return m.commit.Do(ctx, transaction(s, changes))
}

func (m *Monitor) told(changes []change) {
	for _, c := range changes {
		m.states.WithLabelValues(c.state.String()).Inc()
		m.log.Info("node state", "node", c.node.GetMeta().GetId(), "state", c.state.String(), "reason", c.message)
	}
}

func transaction(s *state.Snapshot, changes []change) *storev1.Transaction {
	tx := &storev1.Transaction{}
	for _, c := range changes {
		meta, session := c.node.GetMeta(), c.node.GetStatus().GetSession()
		tx.Preconditions = append(tx.Preconditions,
			commit.Session(meta.GetId(), session.GetDispatcherId(), session.GetNumber()),
			commit.Unchanged(typesv1.Kind_KIND_NODE, meta.GetId(), meta.GetRevision()))
		n := &typesv1.Node{Meta: &typesv1.Meta{Id: meta.GetId()}, Status: proto.CloneOf(c.node.GetStatus())}
		n.Status.State, n.Status.Message, n.Status.Since = c.state, c.message, timestamppb.New(s.ClusterTime())
		tx.Puts = append(tx.Puts, commit.Put(state.Wrap(n), "status"))
	}
	return tx
}
