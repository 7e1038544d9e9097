package docker

import (
	"fmt"
	"time"

	"github.com/docker/go-units"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Autoscale is how the number of tasks follows their load.
type Autoscale struct {
	Min, Max      uint64
	CPUPercent    uint32 `json:",omitempty"`
	MemoryPercent uint32 `json:",omitempty"`
	MemoryBytes   int64  `json:",omitempty"`
	Connections   uint32 `json:",omitempty"`
	UpWindow      *int64
	DownWindow    *int64
	MaxStep       uint64 `json:",omitempty"`
}

// Scale is what the load calls for. Pending is what waits for its window.
type Scale struct {
	Replicas  uint64
	ChangedAt string
	Reason    string
	Pending   string `json:",omitempty"`
}

// Load is what the running tasks use together, and the new connections a second that so many machines led to them.
type Load struct {
	Tasks       uint64
	NanoCPUs    int64
	MemoryBytes int64
	Connections float64 `json:",omitempty"`
	Machines    uint64  `json:",omitempty"`
}

func autoscaleOf(a *typesv1.Autoscale) *Autoscale {
	if a == nil {
		return nil
	}
	return &Autoscale{Min: a.GetMin(), Max: a.GetMax(), CPUPercent: a.GetCpuPercent(), MemoryPercent: a.GetMemoryPercent(), MemoryBytes: a.GetMemoryBytes(),
		Connections: a.GetConnections(), UpWindow: nanos(a.GetUpWindow()), DownWindow: nanos(a.GetDownWindow()), MaxStep: a.GetMaxStep()}
}

func scaleOf(s *typesv1.ServiceScale) *Scale {
	if s == nil {
		return nil
	}
	out := &Scale{Replicas: s.GetReplicas(), ChangedAt: stamp(s.GetChangedAt()), Reason: s.GetReason()}
	for word, a := range map[string]*typesv1.ScaleAdvice{"more": s.GetMore(), "fewer": s.GetFewer()} { // never both
		if a != nil {
			out.Pending = fmt.Sprintf("%s are called for since %s: %d", word, a.GetSince().AsTime().Format(time.RFC3339), a.GetReplicas())
		}
	}
	return out
}

// LoadOf translates what tasks use; nil when nobody tells.
func LoadOf(l *typesv1.ServiceLoad) *Load {
	if l == nil {
		return nil
	}
	return &Load{Tasks: l.GetTasks(), NanoCPUs: l.GetNanoCpus(), MemoryBytes: l.GetMemoryBytes(),
		Connections: float64(l.GetMilliConnections()) / 1000, Machines: l.GetMachines()}
}

// Target is what a task should use, in words.
func (a *Autoscale) Target() string {
	var out string
	add := func(format string, args ...any) {
		if out != "" {
			out += ", "
		}
		out += fmt.Sprintf(format, args...)
	}
	if a.CPUPercent > 0 {
		add("cpu %d %%", a.CPUPercent)
	}
	if a.MemoryPercent > 0 {
		add("memory %d %%", a.MemoryPercent)
	}
	if a.MemoryBytes > 0 {
		add("memory %s", units.BytesSize(float64(a.MemoryBytes)))
	}
	if a.Connections > 0 {
		add("%d connections a second", a.Connections)
	}
	return out
}

// String is the load in words.
func (l *Load) String() string {
	out := fmt.Sprintf("%.2f processors, %s of memory by %d tasks", float64(l.NanoCPUs)/1e9, units.BytesSize(float64(l.MemoryBytes)), l.Tasks)
	if l.Machines > 0 {
		out += fmt.Sprintf("; %.1f connections a second by %d machines", l.Connections, l.Machines)
	}
	return out
}
