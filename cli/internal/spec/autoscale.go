package spec

import (
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// autoscale defines how the number of tasks follows their load.
func (f *Flags) autoscale() {
	f.set.String("autoscale-min", "", "fewest tasks of a service that scales by its load (default 1)")
	f.set.String("autoscale-max", "", "most tasks; with a target it lets the service scale by its load")
	f.set.String("autoscale-cpu", "", "target: percent of the processors that a task reserves, or of its limit; 0: none")
	f.set.String("autoscale-memory", "", "target: memory of a task, 300m or, of what it reserves or its limit, 80%; 0: none")
	f.set.String("autoscale-connections", "", "target: new connections a second that a task gets; 0: none")
	f.set.String("autoscale-up-window", "", "how long more tasks must be called for (default 0s)")
	f.set.String("autoscale-down-window", "", "how long fewer tasks must suffice (default 5m)")
	f.set.String("autoscale-max-step", "", "tasks that may come or go at once; 0: any number")
}

func (f *Flags) applyAutoscale(s *typesv1.ServiceSpec) {
	if off, _ := f.set.GetBool("autoscale-off"); off {
		s.Autoscale = nil
		return
	}
	if !f.any("autoscale-min", "autoscale-max", "autoscale-cpu", "autoscale-memory", "autoscale-connections", "autoscale-up-window",
		"autoscale-down-window", "autoscale-max-step") {
		return
	}
	if s.Autoscale == nil {
		s.Autoscale = &typesv1.Autoscale{}
		if r := s.GetReplicated(); r != nil && !f.set.Changed("replicas") && f.set.Lookup("image") == nil {
			r.Replicas = nil // a new one begins with the fewest
		}
	}
	a := s.Autoscale
	for name, field := range map[string]*uint64{"autoscale-min": &a.Min, "autoscale-max": &a.Max, "autoscale-max-step": &a.MaxStep} {
		if f.set.Changed(name) {
			*field, _ = f.count(name)
		}
	}
	if f.set.Changed("autoscale-cpu") {
		a.CpuPercent = f.percent("autoscale-cpu", strings.TrimSuffix(f.text("autoscale-cpu"), "%"))
	}
	if f.set.Changed("autoscale-memory") {
		a.MemoryPercent, a.MemoryBytes = 0, 0
		text := f.text("autoscale-memory")
		if share, ok := strings.CutSuffix(text, "%"); ok {
			a.MemoryPercent = f.percent("autoscale-memory", share)
		} else {
			bytes, err := units.RAMInBytes(text)
			f.faults.Check(err == nil, "autoscale-memory", "%q is neither an amount of memory, such as 300m, nor a share, such as 80%%", text)
			a.MemoryBytes = bytes
		}
	}
	if f.set.Changed("autoscale-connections") {
		n, err := strconv.ParseUint(f.text("autoscale-connections"), 10, 32)
		f.faults.Check(err == nil, "autoscale-connections", "%q is no number of connections, such as 100", f.text("autoscale-connections"))
		a.Connections = uint32(n)
	}
	f.duration("autoscale-up-window", func(d *durationpb.Duration) { a.UpWindow = d })
	f.duration("autoscale-down-window", func(d *durationpb.Duration) { a.DownWindow = d })
}

func (f *Flags) percent(name, text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 16)
	f.faults.Check(err == nil, name, "%q is no percentage, such as 80", text)
	return uint32(n)
}
