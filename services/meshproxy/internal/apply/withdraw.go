package apply

import (
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// withdrawTime bounds how long a withdrawn task stays out while the stream still has it: the control plane may be away, and
// the task may have come back.
const withdrawTime = 10 * time.Second

// Withdraw takes a task that has died out of the kernel's tables, before the stream says so.
func (l *Loop) Withdraw(task string) {
	l.mu.Lock()
	l.withdrawn[task] = time.Now()
	l.mu.Unlock()
	l.poke()
}

// out are the withdrawn tasks that the model still has. The others are no longer ours to hold out.
func (l *Loop) out(m *mesh.Model) map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]bool{}
	for task, at := range l.withdrawn {
		if time.Since(at) > withdrawTime || !m.Has(task) {
			delete(l.withdrawn, task)
			continue
		}
		out[task] = true
	}
	return out
}
