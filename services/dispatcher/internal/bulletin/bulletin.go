// Package bulletin is what every machine is told alike: whom to trust and whom to refuse, and who is where.
//
// It owns the making of both, once a change instead of once a machine and revision: most revisions are about tasks, and
// thousands of streams ask at each. Who was told a value knows it again by its pointer. A Board is safe for concurrent use;
// what it returns must not be changed.
package bulletin

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/state"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// News is the board at one moment.
type News struct {
	Trust     *dispatcherv1.Trust
	Directory *cav1.Directory
}

// Board keeps the latest.
type Board struct {
	mu      sync.Mutex // guards below
	news    News
	trust   state.Version // of the last change of what the trust is made from
	members state.Version // of the last change of what the directory is made from
}

// At is the news of a snapshot, or of a later one that somebody has asked for before.
func (b *Board) At(s *state.Snapshot) News {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := changed(s, typesv1.Kind_KIND_CLUSTER, typesv1.Kind_KIND_DENIAL); b.news.Trust == nil || !b.trust.Reaches(at) {
		b.trust, b.news.Trust = at, keep(b.news.Trust, trustOf(s))
	}
	if at := changed(s, typesv1.Kind_KIND_MEMBER); b.news.Directory == nil || !b.members.Reaches(at) {
		b.members, b.news.Directory = at, keep(b.news.Directory, directory.FromMembers(s.Members()))
	}
	return b.news
}

func changed(s *state.Snapshot, kinds ...typesv1.Kind) state.Version {
	v := s.Version()
	v.Revision = s.ChangedAt(kinds...)
	return v
}

// keep prefers the older of two equal messages, so that it is known by its pointer.
func keep[M proto.Message](old, next M) M {
	if proto.Equal(old, next) {
		return old
	}
	return next
}

func trustOf(s *state.Snapshot) *dispatcherv1.Trust {
	denied := s.DeniedList()
	slices.Sort(denied)
	return &dispatcherv1.Trust{Bundle: s.Cluster().GetAuthority().GetBundle(), Denied: denied}
}
