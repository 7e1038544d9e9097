package space

import (
	"net/netip"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
)

// missing tells of containers that the agent has not handed over yet, soon after our start.
func (s *Spaces) missing() error {
	if time.Since(s.started) > handOver {
		return nil
	}
	for task := range s.model.LocalTasks() {
		has := false
		for id := range s.spaces {
			has = has || taskOf(id) == task.GetTaskId()
		}
		if !has && len(task.GetNetworkIds()) > 0 {
			return errs.New(errs.Unavailable, "waits for the agent to hand over the containers that run")
		}
	}
	return nil
}

// remember keeps the addresses of tasks that have ended for as long as they refuse. It is true if one of them has a task again,
// which happens on a network that is nearly full.
func (s *Spaces) remember(gone, back []netip.Addr) (reused bool) {
	for _, a := range back {
		if _, refuses := s.ended[a]; refuses {
			reused = true
			delete(s.ended, a)
		}
	}
	for _, a := range gone {
		s.ended[a] = time.Now()
	}
	return reused
}

// recent are the addresses that refuse.
func (s *Spaces) recent() []netip.Addr {
	var out []netip.Addr
	for a := range s.ended {
		out = append(out, a)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// expire forgets connections that were led to tasks which ended a while ago: until now a late packet was answered with a
// reset, from now on its address may be another task's.
func (s *Spaces) expire() {
	old := map[netip.Addr]bool{}
	for a, at := range s.ended {
		if time.Since(at) > goneFor {
			old[a] = true
			delete(s.ended, a)
		}
	}
	if len(old) == 0 {
		return
	}
	for _, x := range s.spaces {
		if err := x.wire.forget(0, func(a netip.Addr) bool { return old[a] }); err != nil {
			s.env.Log.Warn("connections to tasks that have ended not forgotten", "container", x.id, "error", err)
		}
	}
}

// forgetWithdrawn lets go of the tasks that the cluster does not count any more itself.
func (s *Spaces) forgetWithdrawn() {
	if len(s.withdrawn) == 0 {
		return
	}
	counted := map[string]bool{}
	for id := range s.model.Networks() {
		if d := s.model.Directory(id); d != nil {
			for svc := range d.InOrder() {
				for _, e := range svc.GetEndpoints() {
					counted[e.GetTaskId()] = true
				}
			}
		}
	}
	for task := range s.withdrawn {
		if !counted[task] {
			delete(s.withdrawn, task)
		}
	}
}

// Held is how many containers there are.
func (s *Spaces) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spaces)
}
