package sim_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

// Who follows tasks by their ids is done when they have ended, as with `docker logs -f`: also when they had ended before, or when
// history lets go of them. Who follows a service or a slot goes on: others may come.
func TestFollowingATaskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := sim.New(t, 3, apart())
		serve(t, c, 2)
		first, second := tasksOf(t, c, "web")[0], tasksOf(t, c, "web")[1]
		say(t, c, first, "one")
		id := first.GetTask().GetMeta().GetId()
		on := &logsv1.LogOptions{Follow: true}
		task, begun, both := follow(t, c, on, id), follow(t, c, on, id[:12]), follow(t, c, on, id, second.GetTask().GetMeta().GetId())
		service, slot := follow(t, c, on, "web"), follow(t, c, on, first.GetName())
		all := []*followed{task, begun, both, service, slot}
		want := func(what string, f *followed, line string) {
			t.Helper()
			for {
				got := f.next(20 * time.Second)
				if strings.Contains(got, " missing: ") {
					continue
				}
				if got != line {
					t.Errorf("%s: %q, want %q", what, got, line)
				}
				return
			}
		}
		for _, f := range all {
			want("at first", f, first.GetName()+" one")
		}
		say(t, c, first, "two")
		for _, f := range all {
			want("as it runs", f, first.GetName()+" two")
		}
		if err := c.Operator.Update("web", func(s *typesv1.ServiceSpec) {
			s.Task.ForceUpdate++
			s.Update = &typesv1.UpdateConfig{Parallelism: new(uint64(1)), Delay: nil}
		}); err != nil {
			t.Fatal(err)
		}
		want("its task has ended", task, "ended: EOF")
		want("its task has ended", begun, "ended: EOF")
		want("both have ended", both, "ended: EOF")
		late := follow(t, c, on, id)
		want("of one that had ended", late, first.GetName()+" one")
		want("of one that had ended", late, first.GetName()+" two")
		want("of one that had ended", late, "ended: EOF")

		c.Operator.Converge("web", 2, time.Minute)
		next := tasksOf(t, c, "web")[0]
		say(t, c, next, "three")
		want("the service", service, next.GetName()+" three")
		want("the slot", slot, next.GetName()+" three")

		last := follow(t, c, on, next.GetTask().GetMeta().GetId())
		want("the last one", last, next.GetName()+" three")
		if err := c.Operator.Scale("web", 0); err != nil {
			t.Fatal(err)
		}
		want("history has let go of it", last, "ended: EOF")
	})
}
