// Package mode is the ways in which a service has slots: so many, one on each node, or as many as a job is to complete.
//
// It owns the rules that say which slots there are; what happens in each is package upkeep's. It is pure.
package mode

import (
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/rollout"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/upkeep"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide/visit"
)

// mode is one service that is brought nearer to its spec.
type mode struct{ *upkeep.Keeper }

// Reconcile brings a service nearer to its spec. One of a mode that only a newer scheduler knows is left as it is.
func Reconcile(v *visit.Visit) {
	if v.Service.GetSpec().GetMode() == nil {
		return
	}
	m := &mode{&upkeep.Keeper{Rollout: rollout.New(v)}}
	target := m.Target
	m.look()
	if m.Target != target { // the update has failed amid the look, and goes back: what was looked at before was judged by its spec
		m.Again = true
		m.look()
	}
	m.Finish()
}

// look looks at all slots.
func (m *mode) look() {
	switch {
	case state.IsJob(m.Service):
		m.reconcileJob()
	case m.Group.PerNode():
		m.reconcileGlobal()
	default:
		m.reconcile()
	}
}

// Remove stops and forgets all tasks of a service that is gone.
func Remove(v *visit.Visit) {
	k := &upkeep.Keeper{Rollout: &rollout.Rollout{Visit: v}}
	k.RemoveAll("its service was removed")
}
