package decide_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// TestRoomsAreFoundAsOneByOne: a decision that looks once for many tasks that displace others chooses the victims that as many
// decisions choose which look at all nodes each.
func TestRoomsAreFoundAsOneByOne(t *testing.T) {
	began, _ := crowded(t, 12, 5, 96<<20) // two of the lower class make room for one, and half of the second is left over
	began = lowered(began)
	victims := func(batch int) map[string]string {
		s, d, id := began, decide.NewDecider(batch), ids()
		out := map[string]string{}
		for {
			p := d.Decide(s, start(), func() string { return "u" + id() })
			if p.Empty() {
				return out
			}
			s = applied(s, p)
			for _, put := range p.Puts {
				if task := put.GetObject().GetTask(); strings.HasPrefix(task.GetDecided().GetReason(), "displaced by ") {
					out[task.GetMeta().GetId()] = task.GetDecided().GetReason()
				}
			}
		}
	}
	once, many := victims(1<<30), victims(1)
	if len(many) == 0 || !maps.Equal(once, many) {
		t.Errorf("one decision displaces\n%v\nmany displace\n%v", once, many)
	}
}

// lowered gives the services different classes.
func lowered(s *state.Snapshot) *state.Snapshot {
	txn := s.Begin()
	v := s.Version()
	v.Revision++
	for i := range 10 {
		svc := proto.CloneOf(s.Service(fmt.Sprintf("svc%022d", i)))
		svc.Spec.Priority = int32(-i % 3)
		txn.Put(state.Wrap(svc))
	}
	return txn.Commit(v, start())
}
