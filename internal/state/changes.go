package state

import (
	"maps"
	"slices"

	"github.com/tidwall/btree"
)

const (
	// keptRevisions and keptKeys bound what a snapshot remembers of the changes that led to it.
	keptRevisions = 4096
	keptKeys      = 1 << 16
)

// history is what has changed lately: revision -> keys, copied in constant time as the trees of objects are.
type history struct {
	since btree.Map[uint64, []Key]
	floor uint64 // changes up to this revision are forgotten
	keys  int
}

func (h *history) copy() history {
	return history{since: *h.since.Copy(), floor: h.floor, keys: h.keys}
}

// add notes the keys of one revision and forgets the oldest when there are too many.
func (h *history) add(revision uint64, touched map[Key]struct{}) {
	if len(touched) == 0 {
		return
	}
	keys, _ := h.since.Get(revision)
	keys = slices.AppendSeq(slices.Clip(keys), maps.Keys(touched))
	h.since.Set(revision, keys)
	h.keys += len(touched)
	for h.since.Len() > keptRevisions || h.keys > keptKeys {
		first, gone, ok := h.since.PopMin()
		if !ok {
			return
		}
		h.floor, h.keys = first, h.keys-len(gone)
	}
}

// ChangedSince lists the keys of the objects that were put or deleted after version v, in no order, some perhaps twice.
// Ok is false when that is not known: v is of another epoch, or too long ago.
func (s *Snapshot) ChangedSince(v Version) (keys []Key, ok bool) {
	if !v.SameEpoch(s.version) || v.Revision < s.recent.floor || v.Revision > s.version.Revision {
		return nil, false
	}
	s.recent.since.Ascend(v.Revision+1, func(_ uint64, k []Key) bool {
		keys = append(keys, k...)
		return true
	})
	return keys, true
}
