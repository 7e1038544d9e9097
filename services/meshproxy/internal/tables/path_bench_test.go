package tables_test

import (
	"errors"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/sysctl"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tables"
)

// BenchmarkPath is what a packet's way costs, on two processors or more: a connection each, and a request on an open one, with a
// task asked by its own machine, by a port of its machine from the wire, and by the mesh of another machine. Beside them the same ways
// with nothing but the kernel's forwarding and, for the second, the tunnel: no rule, no tracking, no translation. All in turns; the
// CPU time is that of this process, which the kernel's work for its packets is charged to, and so of all machines together.
func BenchmarkPath(b *testing.B) {
	w := newWorld(b)
	svc := serviceOf("b1")
	svc.Endpoints[0].HostPorts = []*typesv1.PortConfig{{PublishedPort: 30002, TargetPort: 8001, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST}}
	w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{svc}})
	bare := bareWorld(b)
	for _, of := range []*world{w, bare} {
		talk := startTalker(b, of.containers["b1"])
		defer talk.Close()
	}
	sides := []*pathSide{
		{name: "direct", h: w.machines["b"], to: inside("b1", true) + ":8001"},
		{name: "wire", h: w.client, to: wire("2", true) + ":30002"},
		{name: "mesh", h: w.client, to: wire("1", true) + ":30001"},
		{name: "bare-wire", h: bare.machines["c"], to: inside("b1", true) + ":8001"},
		{name: "bare-mesh", h: bare.client, to: inside("b1", true) + ":8001"},
	}
	for _, fresh := range []bool{false, true} {
		b.Run(map[bool]string{false: "requests", true: "connections"}[fresh], func(b *testing.B) {
			for b.Loop() {
				for _, s := range sides {
					if err := s.turn(fresh); err != nil {
						b.Fatal(s.name, err)
					}
				}
			}
			for _, s := range sides {
				slices.Sort(s.cpu)
				b.ReportMetric(s.cpu[len(s.cpu)/2], "µs-cpu-"+s.name)
				s.cpu = nil
			}
		})
	}
}

// bareWorld has machines without our tables. The client is led to b's containers by a and its tunnel, and back; machine c
// by b.
func bareWorld(b *testing.B) *world {
	w := newWorld(b)
	for _, h := range w.machines {
		h.do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			conn.DelTable(&nftables.Table{Name: "shoal", Family: nftables.TableFamilyINet})
			conn.DelTable(&nftables.Table{Name: "shoal", Family: nftables.TableFamilyNetdev})
			rules, errRules := netlink.RuleList(netlink.FAMILY_V4)
			faults := []error{conn.Flush(), errRules}
			for _, r := range rules {
				if r.Protocol == tables.Protocol {
					faults = append(faults, netlink.RuleDel(&r))
				}
			}
			for _, link := range []string{"all", "eth0", kernel.MachineTunnel} {
				faults = append(faults, sysctl.Write("net/ipv4/conf/"+link+"/rp_filter", "0"))
			}
			return errors.Join(faults...)
		})
	}
	w.machines["b"].do(func() error {
		l, err := netlink.LinkByName(kernel.MachineTunnel)
		if err != nil {
			return err
		}
		_, client, err := net.ParseCIDR(wire("9", true) + "/32")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: client, Gw: net.ParseIP(wire("1", true)), Flags: int(netlink.FLAG_ONLINK)})
	})
	route(w.client, "10.128.2.0/24", wire("1", true))
	route(w.machines["c"], "10.128.2.5/32", wire("2", true))
	return w
}

type pathSide struct {
	name string
	h    *host
	to   string
	cpu  []float64 // of each turn, for one request
}

const perTurn = 200

// turn asks so often, from one thread in the host's namespace.
func (s *pathSide) turn(fresh bool) error {
	return s.h.try(func() error {
		var c net.Conn
		before := cpuTime()
		for i := range perTurn {
			if fresh || i == 0 {
				var err error
				if c, err = net.DialTimeout("tcp", s.to, 4*time.Second); err != nil {
					return err
				}
			}
			if _, err := say(c, "x\n"); err != nil {
				return err
			}
			if fresh || i == perTurn-1 {
				c.Close()
			}
		}
		s.cpu = append(s.cpu, float64((cpuTime()-before).Microseconds())/perTurn)
		return nil
	})
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
