package space

import (
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/meshproxy/internal/vip"
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
		if !has && (len(task.GetNetworkIds()) > 0 || s.callersOf(task) != nil) {
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

// there are the addresses of all tasks on a container's networks.
func (s *Spaces) there(x *space) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, network := range s.model.LocalTask(taskOf(x.id)).GetNetworkIds() {
		vip.Collect(s.model.Network(network), out)
	}
	return out
}

// stays says that a client of a protocol goes on with the task that it was led to, gone or not: it hears of no end. So does one that
// sends echoes (ping) without end.
func stays(protocol byte) bool {
	return protocol == unix.IPPROTO_UDP || protocol == unix.IPPROTO_ICMP || protocol == unix.IPPROTO_ICMPV6
}

// strays are connections that were led to who is no more behind the address: UDP to whom no new ones go, all to who has ended.
func strays(t vip.Table, there map[netip.Addr]bool) func(flow) bool {
	return func(f flow) bool {
		backends, ours := t[f.target]
		if stays(f.protocol) {
			return ours && !slices.Contains(backends, f.replySource)
		}
		return ours && !there[f.replySource]
	}
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
		if err := x.wire.forget(func(f flow) bool { return old[f.replySource] }); err != nil {
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
