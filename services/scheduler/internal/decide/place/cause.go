package place

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/constraint"
)

// Cause is why a node does not take a task.
type Cause uint8

// The causes, in the order in which the filters run.
const (
	None Cause = iota
	NotConnected
	Silent
	Down
	Paused
	Drained
	TrafficOnly
	Held
	Constraint
	Platform
	NoUsers
	Tainted
	NoAddress
	CPUs
	Memory
	PIDs
	Disk
	Generic
	HostPort
	MaxReplicas
	Affinity
	causes
)

// words are for one node and for several. The text is what the nodes say themselves.
func (r *Request) words(c Cause, text string) (one, many string) {
	switch c {
	case Constraint:
		return "does not meet " + text, "do not meet " + text
	case NoUsers:
		return "has no user namespaces (" + text + ")", "have no user namespaces (" + text + ")"
	case Platform:
		return "is not " + platformNames(r.platforms), "are not " + platformNames(r.platforms)
	case CPUs, Memory, PIDs, Disk, Generic:
		what := r.wanting(c)
		return "lacks " + what, "lack " + what
	case HostPort:
		what := r.portNames() + " in use"
		return "has " + what, "have " + what
	case MaxReplicas:
		what := fmt.Sprintf("%d tasks of the service already", r.MaxReplicas)
		if r.MaxReplicas == 1 {
			what = "a task of the service already"
		}
		return "has " + what, "have " + what
	default:
		words := plain()[c]
		return words[0], words[1]
	}
}

// plain are the words of causes that need no figures.
func plain() [causes][2]string {
	return [causes][2]string{
		NotConnected: {"has not connected yet", "have not connected yet"},
		Silent:       {"does not answer", "do not answer"},
		Down:         {"is down", "are down"},
		Paused:       {"is paused", "are paused"},
		Drained:      {"is drained", "are drained"},
		TrafficOnly:  {"only takes traffic", "only take traffic"},
		Held:         {"was lost again and again and is watched", "were lost again and again and are watched"},
		Tainted:      {"has a taint that it does not tolerate", "have taints that it does not tolerate"},
		NoAddress:    {"has no free address", "have no free address"},
		Affinity:     {"is not where its affinities want it", "are not where its affinities want it"},
	}
}

// wanting is the resource that is short.
func (r *Request) wanting(c Cause) string {
	switch c {
	case CPUs:
		return Processors(r.Need.GetNanoCpus())
	case Memory:
		return Bytes(r.Need.GetMemoryBytes()) + " of memory"
	case PIDs:
		return fmt.Sprintf("%d processes", r.Need.GetPids())
	case Disk:
		return Bytes(r.Need.GetDiskBytes()) + " of disk"
	default:
		return r.genericNames()
	}
}

// portNames is "host port 53/udp", or "one of the host ports 80/tcp, 443/tcp".
func (r *Request) portNames() string {
	var out []string
	for _, p := range r.Ports {
		protocol := strings.ToLower(strings.TrimPrefix(p.GetProtocol().String(), "PROTOCOL_"))
		out = append(out, fmt.Sprintf("%d/%s", p.GetPublishedPort(), protocol))
	}
	if len(out) == 1 {
		return "host port " + out[0]
	}
	return "one of the host ports " + strings.Join(out, ", ")
}

func (r *Request) genericNames() string {
	var out []string
	for _, g := range r.Need.GetGeneric() {
		if g.GetNamed() != "" {
			out = append(out, g.GetKind()+" "+g.GetNamed())
		} else {
			out = append(out, fmt.Sprintf("%d %s", g.GetDiscrete(), g.GetKind()))
		}
	}
	return strings.Join(out, ", ")
}

// unmet is the first constraint that a node does not meet.
func (r *Request) unmet(n *Node) string {
	if r.invalid != "" {
		return r.invalid
	}
	i := slices.IndexFunc(r.constraints, func(c constraint.Constraint) bool { return !c.Match(n.Object) })
	if i < 0 {
		return "its constraints"
	}
	return r.constraints[i].String()
}

// saysOf is what a node adds to its cause.
func (r *Request) saysOf(n *Node, c Cause) string {
	switch c {
	case Constraint:
		return r.unmet(n)
	case NoUsers:
		if why := n.Object.GetStatus().GetDescription().GetUserNamespacesReason(); why != "" {
			return why
		}
		return "its agent does not tell"
	default:
		return ""
	}
}

// Bytes writes an amount of memory or disk in the largest unit that gives a whole number, else rounded up to a tenth: who frees as
// much has freed enough.
func Bytes(bytes int64) string {
	switch {
	case bytes == 0:
		return "0 B"
	case bytes%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", bytes>>20)
	case bytes > 1<<30:
		return tenths(bytes, 1<<30) + " GiB"
	case bytes > 1<<20:
		return tenths(bytes, 1<<20) + " MiB"
	}
	return tenths(bytes, 1<<10) + " KiB"
}

func tenths(amount, unit int64) string {
	return fmt.Sprintf("%.1f", math.Ceil(float64(amount)/float64(unit)*10)/10)
}

// Processors writes billionths without needless zeros.
func Processors(nano int64) string { return decimal(nano) + " free processors" }

func decimal(nano int64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", float64(nano)/1e9), "0"), ".")
}

// Unmet says why a task may not stay on a node: "no longer meets node.labels.disk == ssd".
func (r *Request) Unmet(n *Node) string {
	if r.MayStay(n) == Tainted {
		return "has a taint that it does not tolerate"
	}
	return "no longer meets " + r.unmet(n)
}
