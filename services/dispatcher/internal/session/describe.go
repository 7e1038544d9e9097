package session

import (
	"cmp"
	"context"
	"net/netip"
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
	describeRetry = 500 * time.Millisecond
	// describeGap is the least time between two descriptions that are written: each is a revision for every replica, and
	// a machine may say a new one as often as it likes.
	describeGap = 5 * time.Second
)

// describe writes the descriptions that wait, each the latest, and returns when none came for a while.
func (s *Server) describe(ctx context.Context, l *line) {
	for d := l.box.takeDescription(); d != nil; d = l.box.takeDescription() {
		for {
			done, err := s.writeDescription(ctx, l, d)
			if ctx.Err() != nil {
				return
			}
			if done {
				break
			}
			if err != nil {
				s.Env.Log.Warn("node description not written, trying again", "node", l.node, "error", err)
			}
			if run.Sleep(ctx, describeRetry) != nil {
				return
			}
			if newer := l.box.takeDescription(); newer != nil {
				d = newer
			}
		}
		if run.Sleep(ctx, describeGap) != nil { // the latest of what comes meanwhile is written then
			return
		}
	}
}

// writeDescription is not done when somebody else has changed the node meanwhile: the status is one field of it, and a
// state that was judged in between must not be lost.
func (s *Server) writeDescription(ctx context.Context, l *line, d *typesv1.NodeDescription) (done bool, err error) {
	snap := s.View.Snapshot()
	n := snap.Node(l.node)
	d = ownAddresses(ownKeys(snap, l.node, d))
	switch number := n.GetStatus().GetSession().GetNumber(); {
	case number < l.number:
		return false, nil // the replica is not at this session's commit yet
	case number > l.number || proto.Equal(n.GetStatus().GetDescription(), d):
		return true, nil
	}
	st := proto.CloneOf(n.GetStatus())
	st.Description = d
	_, err = s.Commit.Do(ctx, statusChange(n, st))
	if commit.RefusalOf(err) != nil {
		return false, nil
	}
	return err == nil, err
}

// statusChange replaces a node's status on condition that nobody has changed the node.
func statusChange(n *typesv1.Node, st *typesv1.NodeStatus) *storev1.Transaction {
	id := n.GetMeta().GetId()
	return &storev1.Transaction{
		Preconditions: []*storev1.Precondition{commit.Unchanged(typesv1.Kind_KIND_NODE, id, n.GetMeta().GetRevision())},
		Puts:          []*storev1.Put{commit.Put(state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: id}, Status: st}), "status")},
	}
}

const (
	// maxTunnelKeys is more than a machine has at once: the key that it uses, and the next.
	maxTunnelKeys = 4
	tunnelKeySize = 32
)

// ownKeys leaves out of a description the keys that are another machine's: who is told a key sends by it, and would send to a machine
// that cannot read it. So it does with what is no key, and with all but the newest few. That two machines tell one key at once the store
// refuses, by its claim.
func ownKeys(snap *state.Snapshot, node string, d *typesv1.NodeDescription) *typesv1.NodeDescription {
	strange := func(k *typesv1.TunnelKey) bool {
		holder, taken := snap.ClaimHolder(state.TunnelKeyClaim(k.GetPublicKey()))
		return len(k.GetPublicKey()) != tunnelKeySize || taken && holder.ID != node
	}
	keys := slices.DeleteFunc(slices.Clone(d.GetTunnelKeys()), strange)
	slices.SortStableFunc(keys, func(a, b *typesv1.TunnelKey) int { return cmp.Compare(a.GetGeneration(), b.GetGeneration()) })
	keys = keys[max(0, len(keys)-maxTunnelKeys):]
	if len(keys) == len(d.GetTunnelKeys()) {
		return d
	}
	d = proto.CloneOf(d)
	d.TunnelKeys = keys
	return d
}

// ownAddresses leaves out of a description what is no address by which a machine may call others, what is said twice, and all but the
// first few: every other machine has each of them in its kernel, once for each task there.
func ownAddresses(d *typesv1.NodeDescription) *typesv1.NodeDescription {
	var good []string
	for _, text := range d.GetOwnAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || !a.IsGlobalUnicast() {
			continue
		}
		if text = a.Unmap().String(); !slices.Contains(good, text) && len(good) < maxAddresses {
			good = append(good, text)
		}
	}
	if slices.Equal(good, d.GetOwnAddresses()) {
		return d
	}
	d = proto.CloneOf(d)
	d.OwnAddresses = good
	return d
}
