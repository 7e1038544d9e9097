package desk

import (
	"bytes"
	"iter"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// MaxHistory is how many earlier task specs a service keeps.
const MaxHistory = 10

// VersionOf is an object's version, for an update.
func VersionOf(s *state.Snapshot, m *typesv1.Meta) *typesv1.Version {
	v := s.Version()
	v.Revision = m.GetRevision()
	return v.Proto()
}

// CheckVersion refuses an update that is based on another version than the present one.
func CheckVersion(s *state.Snapshot, what string, given *typesv1.Version, m *typesv1.Meta) error {
	if given == nil {
		return errs.Faults(what, errs.Fault{Field: "version", Reason: "is missing; it is the one that was read"})
	}
	v := state.VersionOf(given)
	if !v.SameEpoch(s.Version()) || v.Revision != m.GetRevision() {
		return errs.New(errs.Conflict, "%s: update out of sequence", what)
	}
	return nil
}

// Unchanged makes the precondition that goes with CheckVersion: the state machine checks again, in log order.
func Unchanged(key state.Key, v *typesv1.Version) []*storev1.Precondition {
	return []*storev1.Precondition{
		{Condition: &storev1.Precondition_Epoch{Epoch: v.GetEpoch()}},
		{Condition: &storev1.Precondition_Unchanged{Unchanged: &storev1.Unchanged{Kind: key.Kind, Id: key.ID, Revision: v.GetRevision()}}},
	}
}

// Revise finishes the next state of a service; a task spec that differs is a new version, and the one before is kept.
func Revise(d *Desk, what string, svc, old *typesv1.Service) error {
	if err := d.Finish(what, svc, old); err != nil {
		return err
	}
	if bytes.Equal(svc.GetSpecHash(), old.GetSpecHash()) {
		return nil
	}
	svc.SpecVersion++
	svc.RolledBackTo = 0
	record := &typesv1.SpecRecord{Version: old.GetSpecVersion(), Hash: old.GetSpecHash(), Task: old.GetSpec().GetTask()}
	svc.SpecHistory = append([]*typesv1.SpecRecord{record}, svc.GetSpecHistory()...)
	svc.SpecHistory = svc.SpecHistory[:min(len(svc.SpecHistory), MaxHistory)]
	return nil
}

// PutService writes all that an operator may of a service.
func PutService(svc *typesv1.Service) *storev1.Put {
	return Put(state.Wrap(svc), "spec", "spec_version", "spec_hash", "endpoint", "spec_history", "rolled_back_to")
}

type withMeta interface{ GetMeta() *typesv1.Meta }

// ByPrefix is the one object whose id begins with ref.
func ByPrefix[T withMeta](kind, ref string, all iter.Seq[T]) (T, error) {
	var found []T
	if ref != "" {
		for o := range all {
			if strings.HasPrefix(o.GetMeta().GetId(), ref) {
				found = append(found, o)
			}
		}
	}
	var none T
	switch len(found) {
	case 0:
		return none, errs.New(errs.NotFound, "no such %s: %s", kind, ref)
	case 1:
		return found[0], nil
	}
	return none, errs.New(errs.Invalid, "%s %s is ambiguous: %d ids begin so; give more of it", kind, ref, len(found))
}
