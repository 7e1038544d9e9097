package liveness

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/replica/replicatest"
	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

func defaults() Times {
	return Times{Period: 500 * time.Millisecond, Suspect: 2 * time.Second, Down: 4 * time.Second, Lease: 2 * time.Second}
}

// The more machines there are, the less often each beats, and the longer it may be silent. What is left of this when its period is
// a tenth longer by chance bears two losses of a packet, which TCP sends again after 200 and 400 ms, and the way there and back.
func TestPeriodGrowsWithTheMachines(t *testing.T) {
	const ms = time.Millisecond
	for machines, want := range map[int]Pace{
		0: {500 * ms, 2000 * ms}, 1: {500 * ms, 2000 * ms}, 1250: {500 * ms, 2000 * ms}, 2500: {1000 * ms, 2000 * ms},
		3750: {1500 * ms, 2500 * ms}, 5000: {2000 * ms, 3000 * ms}, 10000: {2000 * ms, 3000 * ms},
	} {
		got := defaults().Pace(machines)
		if got != want {
			t.Errorf("%d machines: %v, want %v", machines, got, want)
		}
		if left := got.Patience - got.Period*11/10; left < 750*ms {
			t.Errorf("%d machines: %s are left", machines, left)
		}
	}
	// What is configured close together stays in its order.
	tight := Times{Period: 500 * ms, Suspect: 2 * time.Second, Down: 2100 * ms}
	if got := tight.Pace(10000); got.Patience >= tight.Down || got.Period >= got.Patience {
		t.Errorf("with little time between: %v", got)
	}
}

// Machines of a large dispatcher are told a longer patience. When it dies, that is what counts, also for the last when the others have left
// it; when it lives on without them it is a small one.
func TestMachinesOfALargeDispatcherAreGivenTheirPatience(t *testing.T) {
	const machines, left = 5000, 3
	bound := func(i int, to string) *typesv1.Object {
		return state.Wrap(&typesv1.Node{Meta: &typesv1.Meta{Id: fmt.Sprintf("n%04d", i)}, Status: &typesv1.NodeStatus{
			State: typesv1.NodeState_NODE_STATE_READY, Session: &typesv1.NodeSession{DispatcherId: to},
		}})
	}
	lease := state.Wrap(&typesv1.Lease{Meta: &typesv1.Meta{Id: LeaseName("d2")}})
	objects := []*typesv1.Object{lease}
	for _, d := range []string{"d1", "d2"} {
		objects = append(objects, state.Wrap(&typesv1.Member{Meta: &typesv1.Meta{Id: "dispatcher/" + d}, Role: authzv1.Role_ROLE_DISPATCHER, MachineId: d}))
	}
	var others []*typesv1.Object
	for i := range machines {
		objects = append(objects, bound(i, "d2"))
		if i >= left {
			others = append(others, bound(i, "d1"))
		}
	}
	store := replicatest.New(testx.Env(t), objects...)
	m := &Monitor{peers: newPeers("d1", defaults())}
	renewed := time.Unix(1_900_000_000, 0)
	suspects := func(dead time.Duration) int {
		s, now := store.Snapshot(), renewed.Add(defaults().Lease+dead)
		silence, live := m.peers.observe(s, m.changed(s), now)
		return len(m.peers.changes(s, silence, live, now))
	}
	for _, step := range []struct {
		what string
		do   func()
		dead time.Duration
		want int
	}{
		{"renewed", func() {}, -defaults().Lease, 0},
		{"dead for less than 5,000 machines may wait", func() {}, 2900 * time.Millisecond, 0},
		{"dead for as long", func() {}, 3000 * time.Millisecond, machines},
		{"renewed again", func() { store.Put(lease); renewed = renewed.Add(time.Minute) }, -defaults().Lease, 0},
		{"all but three have left", func() { store.Put(others...) }, 0, 0},
		{"the three may wait as long", func() {}, 2900 * time.Millisecond, 0},
		{"and no longer", func() {}, 3000 * time.Millisecond, left},
		{"renewed with three", func() { store.Put(lease); renewed = renewed.Add(time.Minute) }, -defaults().Lease, 0},
		{"dead for as long as three may wait", func() {}, 2000 * time.Millisecond, left},
	} {
		if step.do(); suspects(step.dead) != step.want {
			t.Errorf("%s: %d are SUSPECT, want %d", step.what, suspects(step.dead), step.want)
		}
	}
}
