package visit

import (
	"google.golang.org/protobuf/proto"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/gate"
)

// passage is what the gate has said in this visit.
type passage struct {
	iteration uint64
	why       string
}

// Gate says for which other services the first tasks of this one, or of a run of a job, still wait; nothing when they may
// start. Once it has been open it stays so until no task is left: the loss of a database must not hold back the restart of
// what runs on it.
func (v *Visit) Gate(iteration uint64) string {
	on := v.Service.GetSpec().GetDependsOn()
	if len(on) == 0 {
		return ""
	}
	was := v.Service.GetDependencyStatus()
	met := was.GetMetAt() != nil && was.GetIteration() >= iteration
	if met && v.began {
		return ""
	}
	if v.passed == nil || v.passed.iteration != iteration {
		v.passed = &passage{iteration, gate.Waits(v.Book, on, v.Lost)}
	}
	switch why := v.passed.why; {
	case why == "" && !met:
		v.EditService(func(s *typesv1.Service) {
			s.DependencyStatus = &typesv1.DependencyStatus{MetAt: v.Stamp, Iteration: iteration}
		})
	case why != "" && met: // all tasks had gone since
		v.EditService(func(s *typesv1.Service) { s.DependencyStatus = nil })
	}
	if v.passed.why != "" {
		v.AwaitPlace()
	}
	return v.passed.why
}

// EditService changes what the scheduler writes of the service.
func (v *Visit) EditService(f func(s *typesv1.Service)) {
	updated := proto.CloneOf(v.Service)
	f(updated)
	if proto.Equal(updated, v.Service) {
		return
	}
	v.RestOnService(v.Group)
	v.PutService(v.Group, updated)
	v.Service = updated
}
