package decide_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// rest is what a witness knows of the addresses of a small network: who had one, and when it was last given back.
type rest struct {
	t     fataler
	m     *sim
	had   map[netip.Addr]string // by task
	freed map[netip.Addr]time.Time
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// look compares what there is with what there was: an address that has come back too early had no better one beside it.
func (r *rest) look() {
	now := map[netip.Addr]string{}
	for t := range r.m.s.Tasks() {
		for _, ta := range t.GetDecided().GetAddresses() {
			a := netip.MustParsePrefix(ta.GetAddresses()[0]).Addr()
			if !state.Terminal(t.GetObserved().GetState()) {
				now[a] = t.GetMeta().GetId()
			} else if end := t.GetMeta().GetUpdatedAt().AsTime(); end.After(r.freed[a]) {
				r.freed[a] = end
			}
		}
	}
	for a, task := range r.had {
		if now[a] != task && r.m.s.Task(task) == nil {
			r.freed[a] = r.m.now
		}
	}
	for a, task := range now {
		since, was := r.freed[a]
		if r.had[a] == task || !was || r.m.now.Sub(since) >= 5*time.Minute {
			continue
		}
		for b := netip.MustParseAddr("10.0.0.2"); b.Compare(netip.MustParseAddr("10.0.0.15")) < 0; b = b.Next() {
			_, taken := now[b]
			if other := r.freed[b]; !taken && other.Before(since) {
				r.t.Fatalf("at %s %s is given again after %s, although %s rests since %s", r.m.now.Sub(start()), a, r.m.now.Sub(since), b, r.m.now.Sub(other))
			}
		}
	}
	r.had = now
}

// TestAddressesRest: whatever comes and goes, an address is given again within 5 minutes only where every other free one was given
// back later. (That it does not depend on what the scheduler remembers is sim.plan's to see.)
func TestAddressesRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newSim(t)
		m.command(nil, []string{"cluster", fmt.Sprintf("history=%d", rapid.IntRange(1, 2).Draw(t, "history"))})
		m.command(nil, []string{"network", "front", "subnet=10.0.0.0/28"})
		m.command(nil, []string{"node", "a"})
		m.command(nil, []string{"node", "b"})
		r := &rest{t: t, m: m, had: map[netip.Addr]string{}, freed: map[netip.Addr]time.Time{}}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			service := fmt.Sprintf("s%d", rapid.IntRange(0, 2).Draw(t, "service"))
			there := m.s.Service(service) != nil
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				m.now = m.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			case 1:
				if there {
					m.delete(typesv1.Kind_KIND_SERVICE, service)
				}
			case 2:
				for task := range m.s.TasksOfService(service) {
					if task.GetObserved().GetState() == typesv1.TaskState_TASK_STATE_RUNNING {
						m.observe(task, typesv1.TaskState_TASK_STATE_FAILED, nil, "")
						break
					}
				}
			default:
				m.command(nil, []string{"service", service, fmt.Sprintf("replicas=%d", rapid.IntRange(0, 4).Draw(t, "replicas")), "networks=front", "restart-delay=0s"})
			}
			r.look()
			m.decide()
			r.look()
			m.settle()
			r.look()
			m.decide()
			r.look()
		}
	})
}
