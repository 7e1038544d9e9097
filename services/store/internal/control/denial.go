package control

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxForgotten bounds the denials that one transaction forgets.
const maxForgotten = 100

// forgetDenials removes denials whose time has passed, with a transaction that makes new ones: so the list, which every
// machine is told, does not grow for ever, and no timer is needed.
func (s nodes) forgetDenials(snap *state.Snapshot, tx *storev1.Transaction) {
	now := s.cfg.Node.ClusterTime()
	made := map[string]bool{}
	for _, p := range tx.GetPuts() {
		made[state.KeyOf(p.GetObject()).ID] = true
	}
	forgotten := 0
	for d := range snap.Denials() {
		id := d.GetMeta().GetId()
		if d.GetUntil() == nil || !d.GetUntil().AsTime().Before(now) || made[id] {
			continue
		}
		if forgotten++; forgotten > maxForgotten {
			return
		}
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_DENIAL, Id: id})
	}
}

// denialLife is how long a certificate of the cluster can be valid, or in grace, from now on.
func denialLife(s *state.Snapshot) time.Duration {
	spec := s.Cluster().GetSpec()
	life, grace := 72*time.Hour, identity.DefaultGrace
	if d := spec.GetCertificateLife(); d != nil {
		life = d.AsDuration()
	}
	if d := spec.GetCertificateGrace(); d != nil {
		grace = d.AsDuration()
	}
	return life + grace
}

func denial(snap *state.Snapshot, id, reason string, until *timestamppb.Timestamp) *storev1.Put {
	d := &typesv1.Denial{Meta: &typesv1.Meta{Id: id}, Reason: reason, Until: until}
	return &storev1.Put{Object: state.Wrap(d), Fields: []string{"reason", "until"}, Create: snap.Denial(id) == nil}
}
