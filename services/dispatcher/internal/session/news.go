package session

import (
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/assign"
	"github.com/shoalproject/shoal/services/dispatcher/internal/bulletin"
)

// newsfeed remembers what a machine has been told and sends what is new. It lives within one epoch.
type newsfeed struct {
	stream stream
	node   string
	board  *bulletin.Board
	box    *outbox
	epoch  state.Version // it began in
	fetch  func()        // what the tasks need and the machine has not got

	set       *assign.Set
	computed  uint64 // revision of the last change of what the set was made from
	trust     *dispatcherv1.Trust
	directory *cav1.Directory
	barrier   uint64
}

// send tells everything that changed. Trust comes before the assignment, which may need it.
func (f *newsfeed) send(s *state.Snapshot, applied state.Version) error {
	news := f.board.At(s)
	if f.trust != news.Trust {
		f.trust = news.Trust
		if err := f.stream.Send(&dispatcherv1.SessionResponse{
			Message: &dispatcherv1.SessionResponse_Trust{Trust: f.trust},
		}); err != nil {
			return err
		}
	}
	if f.directory != news.Directory {
		f.directory = news.Directory
		if err := f.stream.Send(&dispatcherv1.SessionResponse{
			Message: &dispatcherv1.SessionResponse_Directory{Directory: f.directory},
		}); err != nil {
			return err
		}
	}
	if err := f.sendAssignment(s); err != nil {
		return err
	}
	return f.sendBarrier(s, applied)
}

func (f *newsfeed) sendAssignment(s *state.Snapshot) error {
	at := s.ChangedAt(typesv1.Kind_KIND_TASK, typesv1.Kind_KIND_SERVICE, typesv1.Kind_KIND_NETWORK, typesv1.Kind_KIND_NODE,
		typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_REGISTRY)
	if f.set != nil && at == f.computed {
		return nil
	}
	set := assign.Of(s, f.node, f.set)
	generation := s.Version().Proto()
	var a *dispatcherv1.Assignment
	if f.set == nil {
		a = assign.Full(set, generation)
	} else {
		a = assign.Diff(f.set, set, generation)
	}
	f.set, f.computed = set, at
	if a == nil {
		return nil
	}
	if err := f.stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: a}}); err != nil {
		return err
	}
	// After the assignment: the machine keeps no data that no task of it uses.
	if f.box.require(set.Payloads()) {
		f.fetch()
	}
	return nil
}

// awaitsBarrier reports whether a task of the machine stops, and waits until the mesh is far enough.
func (f *newsfeed) awaitsBarrier() bool { return f.set.HighestStop() > f.barrier }

// sendBarrier tells how far the mesh is, while a task of the machine waits for it.
func (f *newsfeed) sendBarrier(s *state.Snapshot, applied state.Version) error {
	if !applied.SameEpoch(s.Version()) || !f.awaitsBarrier() || applied.Revision <= f.barrier {
		return nil
	}
	f.barrier = applied.Revision
	return f.stream.Send(&dispatcherv1.SessionResponse{
		Message: &dispatcherv1.SessionResponse_Barrier{Barrier: &dispatcherv1.MeshBarrier{Applied: applied.Proto()}},
	})
}
