package agenttest

import (
	"io/fs"
	"time"

	"github.com/shoalproject/shoal/services/agent/internal/task"
	"github.com/shoalproject/shoal/services/agent/internal/usage"
)

// Use is what a running container uses.
type Use struct {
	// CPUs is processors.
	CPUs float64
	// Memory is bytes.
	Memory int64
}

// Use changes what each running container of an image uses from now on.
func (h *Host) Use(image string, u Use) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.containers {
		if c.Image == image {
			h.count(c)
		}
	}
	if h.uses == nil {
		h.uses = map[string]Use{}
	}
	h.uses[image] = u
}

// count needs the lock: it adds what a container has used since it was asked last.
func (h *Host) count(c *hollow) {
	now := time.Now()
	if c.presence == task.Running && !c.read.IsZero() {
		c.used += time.Duration(float64(now.Sub(c.read)) * h.uses[c.Image].CPUs)
	}
	c.read = now
}

// Usage has the counters of hollow containers.
type Usage struct{ handle }

// Containers are all that run.
func (u *Usage) Containers() (ids []string) {
	_ = u.with(func() error {
		for id, c := range u.host.containers {
			if c.presence == task.Running {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids
}

// Read tells what a container has used.
func (u *Usage) Read(id string) (f usage.Figures, err error) {
	err = u.with(func() error {
		c := u.host.containers[id]
		if c == nil {
			return fs.ErrNotExist
		}
		u.host.count(c)
		f = usage.Figures{CPU: c.used, Memory: u.host.uses[c.Image].Memory, PIDs: 1}
		return nil
	})
	return f, err
}
