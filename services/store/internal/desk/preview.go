package desk

import (
	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/store/internal/fsm"
)

// Preview says what would become of a transaction, if somebody made it who may. Nothing is chosen for good: the desk is a
// copy, and so is the state machine.
func (a *Admission) Preview(image fsm.Image, caller rpc.Caller, made Build) (fsm.Result, error) {
	tx, err := a.draft(image.Snapshot(), made)
	if err != nil {
		return fsm.Result{}, err
	}
	tx.RequestId = "preview"
	tx.Caller = &storev1.Caller{Role: authzv1.Role_ROLE_OPERATOR, Name: caller.Principal.Name}
	if size := proto.Size(tx); size > fsm.MaxBytes {
		return fsm.Result{}, tooLarge(size)
	}
	out := image.Try(tx)
	return out, Refusal(out.Outcome)
}

func (a *Admission) draft(snap *state.Snapshot, made Build) (*storev1.Transaction, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	copied := &Admission{node: a.node, flights: a.flights, resting: a.resting, cursors: a.cursors.Clone()}
	return made(&Desk{Snap: snap, a: copied})
}

func tooLarge(size int) error {
	return errs.New(errs.Invalid, "the change has %d bytes with what it keeps of before, at most %d are allowed", size, fsm.MaxBytes)
}
