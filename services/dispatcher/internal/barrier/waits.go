package barrier

import (
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// waits remembers the highest revisions that somebody may wait for, until a task changes.
type waits struct {
	at    state.Version
	stop  uint64 // of a task that stops when it is in no table any more
	start uint64 // of a task whose predecessor is asked to stop when it is in all tables
}

func (x *waits) look(s *state.Snapshot) {
	at := s.Version()
	at.Revision = s.ChangedAt(typesv1.Kind_KIND_TASK)
	if at == x.at {
		return
	}
	*x = waits{at: at}
	serving := map[place]uint64{} // of start-first services: the highest revision of a slot's first task
	for t := range s.Tasks() {
		desired, observed := t.GetDecided().GetDesired(), t.GetObserved()
		switch {
		case t.GetDecided().GetNodeId() == "" || state.Terminal(observed.GetState()):
		case desired > typesv1.TaskState_TASK_STATE_RUNNING:
			x.stop = max(x.stop, t.GetMeta().GetRevision())
		case observed.GetReady() && startFirst(s, t):
			at := place{t.GetServiceId(), t.GetDecided().GetSlot()}
			if other, two := serving[at]; two {
				x.start = max(x.start, other, t.GetMeta().GetRevision())
			}
			serving[at] = max(serving[at], t.GetMeta().GetRevision())
		}
	}
}

// place is what two tasks share while one takes over from the other.
type place struct {
	service string
	slot    uint64
}

func startFirst(s *state.Snapshot, t *typesv1.Task) bool {
	return startsFirst(s.Service(t.GetServiceId()))
}

func startsFirst(svc *typesv1.Service) bool {
	return svc.GetSpec().GetUpdate().GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST
}

func anyStartFirst(s *state.Snapshot) bool {
	for svc := range s.Services() {
		if startsFirst(svc) {
			return true
		}
	}
	return false
}
