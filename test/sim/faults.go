package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
)

// Fault is a kind of fault.
type Fault string

// The kinds of faults of a seed.
const (
	PowerCut  Fault = "power cut"
	Kill      Fault = "process killed"
	Pause     Fault = "machine paused"
	Isolate   Fault = "machine cut off"
	Split     Fault = "managers split"
	OneWay    Fault = "managers split one way"
	Loss      Fault = "messages lost"
	Cut       Fault = "connections cut"
	SlowDisk  Fault = "slow disk"
	FullDisk  Fault = "full disk"
	Clock     Fault = "clock an hour off"
	Blackout  Fault = "everything off"
	Container Fault = "container killed"
)

// Faults lists all kinds.
func Faults() []Fault {
	return []Fault{PowerCut, Kill, Pause, Isolate, Split, OneWay, Loss, Cut, SlowDisk, FullDisk, Clock, Blackout, Container}
}

// Hits counts what faults hit, in words: "power cut: the leader".
type Hits map[string]int

// String is one line a kind.
func (h Hits) String() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(h)) {
		fmt.Fprintf(&b, "  %3d × %s\n", h[k], k)
	}
	return b.String()
}

// Of counts the hits of one kind.
func (h Hits) Of(f Fault) int {
	n := 0
	for k, v := range h {
		if strings.HasPrefix(k, string(f)+":") {
			n += v
		}
	}
	return n
}

// Chaos makes the faults of one seed.
type Chaos struct {
	c    *Cluster
	rand *run.Rand
	// Hits is what was hit so far.
	Hits Hits

	mu      sync.Mutex // guards touched
	touched map[string]bool
}

// NewChaos makes a source of faults.
func NewChaos(c *Cluster, seed uint64) *Chaos {
	return &Chaos{c: c, rand: run.NewRand(seed), Hits: Hits{}, touched: map[string]bool{}}
}

// Strike makes one fault, lets it last, and ends it.
func (x *Chaos) Strike(f Fault) {
	lasts := time.Second + time.Duration(x.rand.IntN(7000))*time.Millisecond
	switch f {
	case PowerCut:
		m := x.any()
		x.hit(f, m)
		m.PowerOff()
		time.Sleep(lasts)
		m.Restart()
	case Kill:
		m := x.any()
		role := m.Roles[x.rand.IntN(len(m.Roles))]
		x.Hits[fmt.Sprintf("%s: %s%s", f, identity.RoleName(role), x.lead(m, role))]++
		name := identity.RoleName(role)
		m.Kill(name)
		time.Sleep(lasts / 4)
		if err := m.StartAgain(name); err != nil {
			x.c.t.Errorf("start %s on %s again: %v", name, m.Name, err)
		}
	case Pause:
		m := x.any()
		x.hit(f, m)
		m.Pause()
		time.Sleep(lasts)
		m.Resume()
	case Container:
		x.killContainer()
	case Blackout:
		x.blackout(lasts)
	default:
		x.strikeNetwork(f, lasts)
	}
}

func (x *Chaos) strikeNetwork(f Fault, lasts time.Duration) {
	net := x.c.W.Net
	switch f {
	case Isolate:
		m := x.any()
		x.hit(f, m)
		net.Isolate(m.Name)
		time.Sleep(lasts)
		net.Heal(m.Name)
	case Split, OneWay:
		side := x.managers()[x.rand.IntN(3)]
		x.Hits[fmt.Sprintf("%s: %s alone", f, x.part(side))]++
		net.Partition([]string{side.Name}, x.names(side), f == OneWay)
		time.Sleep(lasts)
		net.Heal()
	case Loss:
		x.Hits[fmt.Sprintf("%s: 5 of 100 everywhere", f)]++
		net.Loss(nil, nil, 0.05)
		time.Sleep(lasts)
		net.Loss(nil, nil, 0)
	case Cut:
		m := x.any()
		x.Hits[fmt.Sprintf("%s: of %s", f, x.part(m))] += net.Cut([]string{m.Name}, nil)
	case SlowDisk:
		m := x.managers()[x.rand.IntN(3)]
		x.Hits[fmt.Sprintf("%s: of %s", f, x.part(m))]++
		m.Raft.SetDelay(200 * time.Millisecond)
		m.Disk.Slow(100 * time.Millisecond)
		time.Sleep(lasts)
		m.Raft.SetDelay(0)
		m.Disk.Slow(0)
	case FullDisk:
		m := x.any()
		x.Hits[fmt.Sprintf("%s: of %s", f, x.part(m))]++
		m.Raft.SetFull(true)
		m.Disk.Full(true)
		time.Sleep(lasts)
		m.Raft.SetFull(false)
		m.Disk.Full(false)
	case Clock:
		m := x.any()
		x.Hits[fmt.Sprintf("%s: of %s", f, x.part(m))]++
		m.SetClock(time.Hour)
		time.Sleep(lasts)
		m.SetClock(0)
	}
}

// blackout takes the power from everything and gives it back.
func (x *Chaos) blackout(lasts time.Duration) {
	x.Hits[fmt.Sprintf("%s: %d machines", Blackout, len(x.c.Machines))]++
	for _, m := range x.c.Machines {
		x.touch(m)
		m.PowerOff()
	}
	time.Sleep(lasts)
	for _, m := range x.c.Machines {
		m.Restart()
	}
}

func (x *Chaos) killContainer() {
	for range 20 {
		m := x.any()
		for _, k := range m.Runtime.Containers() {
			if k.Running && m.Runtime.Kill(k.ID, 137) {
				x.Hits[string(Container)+": one that ran"]++
				return
			}
		}
	}
}

func (x *Chaos) any() *Machine { return x.c.Machines[x.rand.IntN(len(x.c.Machines))] }

func (x *Chaos) managers() []*Machine { return x.c.With(authzv1.Role_ROLE_STORE) }

func (x *Chaos) names(but *Machine) []string {
	var out []string
	for _, m := range x.c.Machines {
		if m != but {
			out = append(out, m.Name)
		}
	}
	return out
}

// Touched tells whether a fault has hit a machine so far: only such a one may be taken for down.
func (x *Chaos) Touched(hostname string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.touched[hostname]
}

func (x *Chaos) touch(m *Machine) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.touched[m.Name] = true
}

func (x *Chaos) hit(f Fault, m *Machine) {
	x.touch(m)
	x.Hits[fmt.Sprintf("%s: %s", f, x.part(m))]++
}

// part says what a machine is at this moment.
func (x *Chaos) part(m *Machine) string {
	switch {
	case slices.Contains(m.Roles, authzv1.Role_ROLE_AGENT):
		running := 0
		for _, k := range m.Runtime.Containers() {
			if k.Running {
				running++
			}
		}
		if running == 0 {
			return "a node without containers"
		}
		return "a node with containers"
	case x.c.Operator.Leader() == m:
		return "the leader"
	default:
		return "a follower"
	}
}

func (x *Chaos) lead(m *Machine, r authzv1.Role) string {
	if r == authzv1.Role_ROLE_STORE && x.c.Operator.Leader() == m {
		return ", the leader"
	}
	return ""
}
