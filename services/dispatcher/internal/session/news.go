package session

import (
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/dispatcher/internal/assign"
)

// newsfeed remembers what a machine has been told and sends what is new.
type newsfeed struct {
	stream grpc.ServerStreamingServer[dispatcherv1.SessionResponse]
	node   string

	set       *assign.Set
	trust     *dispatcherv1.Trust
	directory *cav1.Directory
	barrier   uint64
}

// send tells everything that changed. Trust comes before the assignment, which may need it.
func (f *newsfeed) send(s *state.Snapshot, applied uint64) error {
	if t := TrustOf(s); !proto.Equal(f.trust, t) {
		if err := f.stream.Send(&dispatcherv1.SessionResponse{
			Message: &dispatcherv1.SessionResponse_Trust{Trust: t},
		}); err != nil {
			return err
		}
		f.trust = t
	}
	if d := directory.FromMembers(s.Members()); !proto.Equal(f.directory, d) {
		if err := f.stream.Send(&dispatcherv1.SessionResponse{
			Message: &dispatcherv1.SessionResponse_Directory{Directory: d},
		}); err != nil {
			return err
		}
		f.directory = d
	}
	if err := f.sendAssignment(s); err != nil {
		return err
	}
	return f.sendBarrier(s, applied)
}

func (f *newsfeed) sendAssignment(s *state.Snapshot) error {
	set := assign.Of(s, f.node, f.set)
	generation := s.Version().Proto()
	var a *dispatcherv1.Assignment
	if f.set == nil {
		a = assign.Full(set, generation)
	} else {
		a = assign.Diff(f.set, set, generation)
	}
	f.set = set
	if a == nil {
		return nil
	}
	return f.stream.Send(&dispatcherv1.SessionResponse{Message: &dispatcherv1.SessionResponse_Assignment{Assignment: a}})
}

// sendBarrier tells how far the mesh is, while a task of the machine waits for it.
func (f *newsfeed) sendBarrier(s *state.Snapshot, applied uint64) error {
	if f.set.HighestStop() <= f.barrier || applied <= f.barrier {
		return nil
	}
	f.barrier = applied
	v := s.Version()
	v.Revision = applied
	return f.stream.Send(&dispatcherv1.SessionResponse{
		Message: &dispatcherv1.SessionResponse_Barrier{Barrier: &dispatcherv1.MeshBarrier{Applied: v.Proto()}},
	})
}

// TrustOf is whom machines should trust and refuse.
func TrustOf(s *state.Snapshot) *dispatcherv1.Trust {
	denied := s.DeniedList()
	slices.Sort(denied)
	return &dispatcherv1.Trust{Bundle: s.Cluster().GetAuthority().GetBundle(), Denied: denied}
}

func cloneStatus(st *typesv1.NodeStatus) *typesv1.NodeStatus {
	c, _ := proto.Clone(st).(*typesv1.NodeStatus)
	return c
}

func transactionFor(n, next *typesv1.Node) *storev1.Transaction {
	return &storev1.Transaction{
		Preconditions: []*storev1.Precondition{
			commit.Unchanged(typesv1.Kind_KIND_NODE, n.GetMeta().GetId(), n.GetMeta().GetRevision()),
		},
		Puts: []*storev1.Put{commit.Put(state.Wrap(next), "status")},
	}
}
