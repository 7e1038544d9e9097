package fsm

import (
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

// imageFormat is the format of the parts of an image.
const imageFormat = 1

// partSize is about how many bytes a part has. One object more may be in it, so it stays below 3 MiB.
const partSize = 1 << 20

// Group is who is in the Raft group; it travels with an image, because the log that told it may be gone.
type Group struct {
	Peers   []*storev1.RaftPeer
	Removed []uint64
}

// Image is the whole state at one point. It never changes.
type Image struct {
	snap    *state.Snapshot
	memory  memory
	writers Writers
}

// Image is the machine's state now. It costs nothing until its Parts are walked.
func (m *Machine) Image() Image {
	return Image{snap: m.snap, memory: m.memory.copy(), writers: m.writers}
}

// Snapshot is the image's objects.
func (i Image) Snapshot() *state.Snapshot { return i.snap }

// Remembered is the first outcome of a request; nil when it is not known.
func (i Image) Remembered(c *storev1.Caller, requestID string) *storev1.Outcome {
	return i.memory.find(RequestKey(c, requestID))
}

// Try says what would become of a transaction, and is left as it was.
func (i Image) Try(tx *storev1.Transaction) Result {
	m := &Machine{writers: i.writers, snap: i.snap, memory: newMemory()}
	return m.apply(tx)
}

// Parts walks the image as marshalled ImageParts, made one at a time.
func (i Image) Parts(g Group) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		w := &partWriter{image: i, yield: yield}
		w.reset()
		w.part.Peers, w.part.Removed = g.Peers, g.Removed
		for o := range i.snap.Objects(state.Kinds()...) {
			w.part.Objects = append(w.part.Objects, o)
			if !w.grow(proto.Size(o)) {
				return
			}
		}
		more := true
		i.memory.order.Scan(func(_ uint64, r *storev1.Remembered) bool {
			w.part.Remembered = append(w.part.Remembered, r)
			more = w.grow(proto.Size(r))
			return more
		})
		if more {
			w.part.Last = true
			w.flush()
		}
	}
}

// partWriter collects one part.
type partWriter struct {
	image Image
	yield func([]byte, error) bool
	part  *storev1.ImagePart
	size  int
}

func (w *partWriter) reset() {
	w.size = 0
	w.part = &storev1.ImagePart{
		Format:      imageFormat,
		Version:     w.image.snap.Version().Proto(),
		ClusterTime: timestamppb.New(w.image.snap.ClusterTime()),
	}
}

func (w *partWriter) grow(n int) bool {
	w.size += n
	if w.size < partSize {
		return true
	}
	ok := w.flush()
	w.reset()
	return ok
}

func (w *partWriter) flush() bool { return w.yield(proto.Marshal(w.part)) }

// Restore makes a machine from the parts of an image.
func Restore(w Writers, parts iter.Seq2[[]byte, error]) (*Machine, Group, error) {
	m, g := New(w), Group{}
	txn := m.snap.Begin()
	last := false
	for raw, err := range parts {
		if err != nil {
			return nil, g, err
		}
		if last {
			return nil, g, errors.New("a snapshot goes on after its last part")
		}
		p := &storev1.ImagePart{}
		if err := proto.Unmarshal(raw, p); err != nil {
			return nil, g, fmt.Errorf("read part of a snapshot: %w", err)
		}
		if p.GetFormat() != imageFormat {
			return nil, g, fmt.Errorf("part of a snapshot has format %d, this release knows %d", p.GetFormat(), imageFormat)
		}
		m.take(txn, p, &g)
		if last = p.GetLast(); last {
			m.snap = txn.Commit(state.VersionOf(p.GetVersion()), p.GetClusterTime().AsTime())
		}
	}
	if !last {
		return nil, g, errors.New("a snapshot ends before its last part")
	}
	return m, g, nil
}

func (m *Machine) take(txn *state.Txn, p *storev1.ImagePart, g *Group) {
	for _, o := range p.GetObjects() {
		txn.Put(o)
	}
	for _, r := range p.GetRemembered() {
		m.memory.put(r)
	}
	g.Peers = append(g.Peers, p.GetPeers()...)
	g.Removed = append(g.Removed, p.GetRemoved()...)
}
