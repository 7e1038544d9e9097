package tables_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

// published is a cluster of two machines with so many services of three tasks each.
func published(services int) *dispatcherv1.EndpointsResponse {
	r := &dispatcherv1.EndpointsResponse{
		Version: &typesv1.Version{Revision: 1}, Full: true, DataPort: 8477, MachineNetwork: "10.128.0.0/10",
		Machines: []*dispatcherv1.MeshMachine{machineOf("a", "1"), machineOf("b", "2")},
	}
	for i := range services {
		r.Services = append(r.Services, numbered(i, 3))
	}
	return r
}

func numbered(i, tasks int) *dispatcherv1.MeshService {
	s := &dispatcherv1.MeshService{
		ServiceId: fmt.Sprintf("service%05d", i), Name: fmt.Sprintf("s%d", i),
		Ports: []*typesv1.PortConfig{{PublishedPort: uint32(1024 + i), TargetPort: 8000}},
	}
	for t := range tasks {
		n := i*3 + t
		s.Endpoints = append(s.Endpoints, &dispatcherv1.MeshEndpoint{
			TaskId: fmt.Sprintf("task%06d", n), NodeId: "b", Slot: uint64(t + 1),
			Addresses: []string{fmt.Sprintf("10.%d.%d.%d", 130+n/65536, n/256%256, n%256), fmt.Sprintf("fd00:5a1:0:2::%x", n+1)},
		})
	}
	return s
}

// bench is a machine that is brought to one model after the other.
type bench struct {
	h         *host
	k         *tables.Kernel
	model     *mesh.Model
	published *mesh.Published
	kernel    kernel.Kernel

	computing, applying time.Duration
}

func (x *bench) take(r *dispatcherv1.EndpointsResponse) error {
	started := time.Now()
	m, err := x.model.Apply(r)
	if err != nil {
		return err
	}
	x.model = m
	self := mesh.Self{Node: "a", Tunnel: addr("198.51.100.1"), MTU: 1500}
	self.Numbers = m.Number(self, nil)
	if x.published, err = m.Publish(self, x.published); err != nil {
		return err
	}
	want, err := m.Desired(self, x.published)
	if err != nil {
		return err
	}
	changes := kernel.Diff(want, x.kernel)
	computed := time.Now()
	if err := x.k.Apply(x.h.t.Context(), changes); err != nil {
		return err
	}
	x.kernel, x.computing, x.applying = want, x.computing+computed.Sub(started), x.applying+time.Since(computed)
	return nil
}

func newBench(b *testing.B, services int) *bench {
	b.Helper()
	x := &bench{h: newHost(b)}
	x.k = x.h.tables()
	x.kernel = kernel.NewKernel()
	x.h.do(func() error { return x.take(published(services)) })
	return x
}

// BenchmarkEndpointChange is one task that leaves a service, or comes to it, among so many services: from the dispatcher's
// response to the transaction in force.
func BenchmarkEndpointChange(b *testing.B) {
	for _, services := range []int{10, 1000, 5000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			x := newBench(b, services)
			i := 0
			x.computing, x.applying = 0, 0
			x.h.do(func() error {
				for b.Loop() {
					i++
					r := &dispatcherv1.EndpointsResponse{
						Version: &typesv1.Version{Revision: uint64(1 + i)}, Services: []*dispatcherv1.MeshService{numbered(5, 2+i%2)},
					}
					if err := x.take(r); err != nil {
						return err
					}
				}
				return nil
			})
			b.ReportMetric(float64(x.computing.Microseconds())/float64(i), "µs-computing/op")
			b.ReportMetric(float64(x.applying.Microseconds())/float64(i), "µs-kernel/op")
		})
	}
}

// BenchmarkStart is a machine's tables from nothing, with the memory that they take in the process.
func BenchmarkStart(b *testing.B) {
	const services = 5000
	for b.Loop() {
		started := time.Now()
		x := newBench(b, services)
		b.ReportMetric(time.Since(started).Seconds(), "s/start")
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-heap")
		runtime.KeepAlive(x)
	}
}
