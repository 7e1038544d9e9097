package admit

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

const (
	downWindow    = 5 * time.Minute
	maxWindow     = time.Hour
	maxPercentage = 1000
	// maxConnections is more than a machine can open in a second.
	maxConnections = 1_000_000
)

// autoscale checks how a service follows its load, and fills it in. Old is the service before, nil for a new one. It comes
// before the mode, which would fill in replicas.
func (f *Faults) autoscale(old *typesv1.Service, spec *typesv1.ServiceSpec) {
	a := spec.GetAutoscale()
	if a == nil {
		f.lastScale(old, spec)
		return
	}
	if spec.GetMode() != nil && spec.GetReplicated() == nil {
		f.Add("autoscale", "is for replicated services, and the mode is %s", ModeName(spec))
		return
	}
	if a.GetMin() == 0 {
		a.Min = 1
	}
	if a.UpWindow == nil {
		a.UpWindow = durationpb.New(0)
	}
	if a.DownWindow == nil {
		a.DownWindow = durationpb.New(downWindow)
	}
	f.Check(a.GetMax() != 0, "autoscale.max", "is missing: say how many tasks there may be at most")
	f.Check(a.GetMax() <= MaxReplicas, "autoscale.max", "%d is not from 1 to %d", a.GetMax(), MaxReplicas)
	f.Check(a.GetMax() == 0 || a.GetMin() <= a.GetMax(), "autoscale.min", "%d is above the most, %d", a.GetMin(), a.GetMax())
	f.Check(a.GetMaxStep() <= MaxReplicas, "autoscale.max_step", "%d is not from 0 to %d", a.GetMaxStep(), MaxReplicas)
	f.window("autoscale.up_window", a.GetUpWindow())
	f.window("autoscale.down_window", a.GetDownWindow())
	f.targets(a, spec)
	f.replicasOf(a, old, spec)
}

func (f *Faults) window(field string, d *durationpb.Duration) {
	f.duration(field, d)
	f.Check(d.AsDuration() <= maxWindow, field, "%s is above the most, %s", d.AsDuration(), maxWindow)
}

// targets checks that there is something to follow, and that a percentage is one of something.
func (f *Faults) targets(a *typesv1.Autoscale, spec *typesv1.ServiceSpec) {
	res := spec.GetTask().GetResources()
	f.Check(a.GetCpuPercent() != 0 || a.GetMemoryPercent() != 0 || a.GetMemoryBytes() != 0 || a.GetConnections() != 0, "autoscale",
		"has no target: cpu_percent, memory_percent, memory_bytes or connections")
	f.Check(a.GetConnections() <= maxConnections, "autoscale.connections", "%d is not from 0 to %d", a.GetConnections(), maxConnections)
	vip := len(spec.GetTask().GetNetworks()) > 0 && spec.GetEndpoint().GetMode() != typesv1.EndpointMode_ENDPOINT_MODE_DNSRR
	f.Check(a.GetConnections() == 0 || vip || len(spec.GetEndpoint().GetPorts()) > 0, "autoscale.connections",
		"nothing is counted: the service neither publishes a port nor has a virtual address")
	percent := func(field string, percent uint32, of int64, what string) {
		f.Check(percent <= maxPercentage, field, "%d is not from 0 to %d", percent, maxPercentage)
		f.Check(percent == 0 || of > 0, field, "is a share of nothing: the service neither reserves nor limits %s", what)
	}
	limits, reserved := res.GetLimits(), res.GetReservations()
	percent("autoscale.cpu_percent", a.GetCpuPercent(), max(limits.GetNanoCpus(), reserved.GetNanoCpus()), "processors")
	percent("autoscale.memory_percent", a.GetMemoryPercent(), max(limits.GetMemoryBytes(), reserved.GetMemoryBytes()), "memory")
	f.Check(a.GetMemoryBytes() == 0 || a.GetMemoryBytes() >= minMemory, "autoscale.memory_bytes", "%d is below the least, %d (4 MiB)",
		a.GetMemoryBytes(), minMemory)
}

// replicasOf checks the number to begin with. Once a service follows its load, that decides, and nobody sets it by hand.
func (f *Faults) replicasOf(a *typesv1.Autoscale, old *typesv1.Service, spec *typesv1.ServiceSpec) {
	if spec.GetMode() == nil {
		spec.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{}}
	}
	r := spec.GetReplicated()
	if r == nil || r.Replicas == nil {
		spec.Mode = &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: new(a.GetMin())}}
		return
	}
	switch before := old.GetSpec().GetReplicated(); {
	case old.GetSpec().GetAutoscale() == nil: // a service that is there may have any number when it begins to follow
		f.Check(old != nil || a.GetMax() == 0 || r.GetReplicas() >= a.GetMin() && r.GetReplicas() <= a.GetMax(), "replicas",
			"%d is not from autoscale.min to autoscale.max, %d to %d", r.GetReplicas(), a.GetMin(), a.GetMax())
	case before.GetReplicas() != r.GetReplicas():
		f.Add("replicas", "follows the load, from %d to %d: change autoscale.min or autoscale.max, or take autoscale away", a.GetMin(), a.GetMax())
	}
}

// lastScale lets a service that stops to follow its load keep the number of tasks that it has, if nobody says another.
func (f *Faults) lastScale(old *typesv1.Service, spec *typesv1.ServiceSpec) {
	before := old.GetSpec()
	if before.GetAutoscale() != nil && spec.GetReplicated() != nil && spec.GetReplicated().GetReplicas() == before.GetReplicated().GetReplicas() {
		spec.GetReplicated().Replicas = new(state.Replicas(old))
	}
}
