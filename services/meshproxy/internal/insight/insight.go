// Package insight shows people what this machine's network is like and what passes it.
//
// It owns the form of the answers and their bounds. It changes nothing. Who may ask is decided before a call comes here: the
// dispatcher checks the person's rights, and the agent's socket is its own. A Server is safe for concurrent use.
package insight

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/tracked"
)

const (
	// atOnce bounds the machines that are tried side by side, most how many are tried at all, and long for how long: the answer must
	// come before who has asked gives up.
	atOnce, most, long = 32, 256, 45 * time.Second
)

// Mesh is what the machine knows of the cluster, and what it does for its published ports.
type Mesh interface {
	Told() *mesh.Model
	Shown() *mesh.Published
}

// Virtual are the virtual addresses of the machine's containers.
type Virtual interface {
	// Flows hands on the connections to them.
	Flows(do func(container string, f tracked.Flow)) error
	// Behind are who stands behind one, by the containers that may dial it.
	Behind(vip netip.Addr) map[string][]netip.Addr
}

// Server implements logs.v1.NodeNetworkService.
type Server struct {
	logsv1.UnimplementedNodeNetworkServiceServer

	Env  run.Env
	Node string
	Mesh Mesh
	// Members are the processes of a role.
	Members func(authzv1.Role) []*cav1.DirectoryEntry
	// Facts looks at the machine's own network; nil: it has none of the kernel's.
	Facts func() (examine.Facts, error)
	// Echo says whether a packet of a size comes through the tunnel, from and to machines' own addresses in it.
	Echo func(from, to netip.Addr, size int) (bool, error)
	// Elements are what is in the kernel's maps; nil: there are none.
	Elements func() (map[kernel.Slot]string, error)
	// Flows hands on the connections that the kernel tracks, Opened are those that the forwarder carries.
	Flows  func(func(tracked.Flow)) error
	Opened func() []forward.Open
	// Virtual are the containers' virtual addresses; nil: containers have no namespaces.
	Virtual Virtual

	looking sync.Mutex // held while the network is examined
	reading sync.Mutex // held while connections are read: the kernel looks through all of them for each container
}

// ExamineNetwork implements NodeNetworkService. A look costs packets to every other machine, so one goes on at a time.
func (s *Server) ExamineNetwork(_ *logsv1.ExamineNetworkRequest, out grpc.ServerStreamingServer[logsv1.ExamineNetworkResponse]) error {
	ctx := out.Context()
	// Step 1: the clock, at once, so that the way of the answer is not counted as the clock's.
	if err := out.Send(&logsv1.ExamineNetworkResponse{Now: timestamppb.New(s.Env.Now())}); err != nil {
		return err
	}
	if !s.looking.TryLock() {
		return errs.New(errs.Exhausted, "this machine's network is looked at already; ask again soon")
	}
	defer s.looking.Unlock()
	model := s.Mesh.Told()
	// Step 2: the machine itself.
	r, full := &logsv1.ExamineNetworkResponse{}, 0
	if s.Facts != nil {
		facts, err := s.Facts()
		full = facts.Tunnel
		if err != nil {
			r.Findings = append(r.Findings, message("", finding.Warned("doctor", err.Error(), "a part was not looked at", "report it")))
		}
		for _, f := range examine.Machine(facts, networks(model)) {
			r.Findings = append(r.Findings, message("", f))
		}
	}
	if err := out.Send(r); err != nil {
		return err
	}
	// Step 3: the ways to the others.
	limited, cancel := context.WithTimeout(ctx, long)
	defer cancel()
	ways, untried := s.ways(limited, model, full)
	if err := ctx.Err(); err != nil {
		return err
	}
	if untried > 0 {
		f := finding.Warned("way", fmt.Sprintf("the way to %d of %d other machines was not tried", untried, untried+len(ways)),
			fmt.Sprintf("one machine tries %d at most, for %s", most, long), "mend what is found; what is not tried from here may be from elsewhere")
		if err := out.Send(&logsv1.ExamineNetworkResponse{Findings: []*logsv1.NetworkFinding{message("", f)}}); err != nil {
			return err
		}
	}
	for _, w := range ways {
		r := &logsv1.ExamineNetworkResponse{}
		for _, f := range examine.Peer(w) {
			r.Findings = append(r.Findings, message(w.Peer, f))
		}
		if err := out.Send(r); err != nil {
			return err
		}
	}
	return nil
}

func message(peer string, f finding.Finding) *logsv1.NetworkFinding {
	return &logsv1.NetworkFinding{Check: f.Check, Peer: peer, What: f.What, Why: f.Why, Fix: f.Fix, Grade: map[finding.Grade]logsv1.FindingGrade{
		finding.OK: logsv1.FindingGrade_FINDING_GRADE_OK, finding.Warning: logsv1.FindingGrade_FINDING_GRADE_WARNING, finding.Fault: logsv1.FindingGrade_FINDING_GRADE_FAULT,
	}[f.Grade]}
}

func networks(m *mesh.Model) []examine.Network {
	var out []examine.Network
	add := func(name, text string, routed bool) {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, examine.Network{Name: name, Prefix: p.Masked(), Routed: routed})
		}
	}
	add("the machine network", m.MachineNetwork(), true)
	for _, n := range m.Networks() {
		for _, subnet := range n.GetSubnets() {
			add("network "+n.GetName(), subnet, false)
		}
	}
	return out
}

// ways tries the other machines, those behind this one in the order of ids first, a bounded number of them side by side. How many were
// not tried is told: they are too many, or ctx has ended.
func (s *Server) ways(ctx context.Context, m *mesh.Model, full int) (out []examine.Way, untried int) {
	peers := slices.Sorted(maps.Keys(m.Machines()))
	peers = slices.DeleteFunc(peers, func(id string) bool { return id == s.Node })
	at, _ := slices.BinarySearch(peers, s.Node)
	peers = slices.Concat(peers[at:], peers[:at])
	all := len(peers)
	peers = peers[:min(most, all)]
	tried := make([]*examine.Way, len(peers))
	places := make([]int, len(peers))
	for i := range places {
		places[i] = i
	}
	err := run.Each(ctx, atOnce, places, func(ctx context.Context, i int) error {
		if w := s.way(ctx, m, peers[i], full); ctx.Err() == nil { // else it was cut short, and says nothing of the way
			tried[i] = &w
		}
		return nil
	})
	if err != nil {
		s.Env.Log.Warn("not all ways looked at", "error", err)
	}
	for _, w := range tried {
		if w != nil {
			out = append(out, *w)
		}
	}
	return out, all - len(out)
}
