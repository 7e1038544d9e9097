package fsm

import (
	"time"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
)

// Bounds of the memory of outcomes. A caller that tries again after that long has been told long ago that it may not.
const (
	memoryCount = 20_000
	memoryAge   = 10 * time.Minute
)

// memory keeps the outcomes of requests. It is part of the state: all members forget the same at the same revision.
type memory struct {
	byKey *btree.Map[string, *storev1.Remembered]
	order *btree.Map[uint64, *storev1.Remembered]
	next  uint64
}

func newMemory() memory {
	return memory{byKey: &btree.Map[string, *storev1.Remembered]{}, order: &btree.Map[uint64, *storev1.Remembered]{}}
}

// copy costs nothing until one of the two changes.
func (m *memory) copy() memory {
	return memory{byKey: m.byKey.Copy(), order: m.order.Copy(), next: m.next}
}

func (m *memory) find(key string) *storev1.Outcome {
	if key == "" {
		return nil
	}
	r, _ := m.byKey.Get(key)
	return r.GetOutcome()
}

func (m *memory) add(key string, out *storev1.Outcome, at time.Time) {
	if key == "" {
		return
	}
	m.put(&storev1.Remembered{RequestId: key, Outcome: out, ClusterTime: timestamppb.New(at)})
	for {
		n, oldest, ok := m.order.Min()
		if !ok || (m.order.Len() <= memoryCount && at.Sub(oldest.GetClusterTime().AsTime()) <= memoryAge) {
			return
		}
		m.order.Delete(n)
		m.byKey.Delete(oldest.GetRequestId())
	}
}

func (m *memory) put(r *storev1.Remembered) {
	m.byKey.Set(r.GetRequestId(), r)
	m.order.Set(m.next, r)
	m.next++
}
