package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
	"github.com/shoalproject/shoal/services/meshproxy/internal/turn"
)

// Published is what a machine does for the published ports: who listens, and what the packet filter's maps have. It is made
// from another one, of which it keeps what has not changed. It is never changed once made.
type Published struct {
	parts    shards.Map[*portion]     // by service
	elements shards.Map[*kernel.Part] // those of parts
	services shards.Map[*dispatcherv1.MeshService]
	basis    basis
	wrong    map[string]faults // by service
	ports    arranged
	// turns counts the ports of each turn and family. Its elements have no owner: ports share them.
	turns map[kernel.Slot]turnUse
	// use is the part of turns in the elements.
	use *kernel.Part
}

type turnUse struct {
	chain string
	ports int
}

// basis is what all services' portions depend on.
type basis struct {
	era  *era
	self string
	// leavesOut says that this machine leaves something out, which may be another thing the next time.
	leavesOut bool
}

// portion is a service's share.
type portion struct {
	// elements are those of part, while it is made.
	elements map[kernel.Slot]string
	part     *kernel.Part
	// ports are the service's, with the turns that they take; from says what the portion was made of, so that it is made again
	// only when that changes.
	ports   []Port
	turns   []kernel.Entry
	counted []kernel.Slot
	faults  faults
	from    partSource
}

// partSource says all that a service's part is made of: while it is the same, so is the part.
type partSource struct {
	service *dispatcherv1.MeshService
	era     *era
	self    string
	// out are the tasks and listeners of the service that this machine leaves out.
	out string
}

// era is the time in which machines, settings and owners of ports have not changed.
type era struct {
	addresses map[string]addresses // by machine
	homes     []home
}

// faults are what is wrong in a part, kept with it: it is told as long as it is so.
type faults []errs.Fault

func (f *faults) add(where, format string, args ...any) {
	*f = append(*f, errs.Fault{Field: where, Reason: fmt.Sprintf(format, args...)})
}

// Publish makes what follows from the model for this machine. Prev may be nil. What is wrong in the tables is left out and
// told in the error, one fault each, beside what is right. While machines, settings and what is left out stay, the cost is that of
// the services that have changed.
func (m *Model) Publish(self Self, prev *Published) (*Published, error) {
	if prev == nil {
		prev = &Published{}
	}
	if m == nil {
		return &Published{}, nil
	}
	now := basis{era: m.era, self: self.text(), leavesOut: len(self.Withdrawn)+len(self.Held) > 0}
	fresh := map[string]*portion{} // nil: has gone
	look := func(id string, svc *dispatcherv1.MeshService) {
		from := partSource{service: svc, era: m.era, self: now.self, out: self.leftOut(svc)}
		if p := prev.parts.Get(id); p == nil || p.from != from {
			fresh[id] = m.partOf(svc, self, from)
		}
	}
	for id := range m.services.Differing(prev.services) {
		if svc := m.services.Get(id); svc != nil {
			look(id, svc)
		} else {
			fresh[id] = nil
		}
	}
	if now != prev.basis || now.leavesOut {
		for id, svc := range m.services.All() {
			look(id, svc)
		}
	}
	next := prev.with(fresh)
	next.services, next.basis = m.services, now
	return next, next.fault()
}

// with is what there is after these portions have taken the place of others.
func (p *Published) with(fresh map[string]*portion) *Published {
	next := *p
	if p.use != nil && len(fresh) == 0 {
		return &next
	}
	elements := make(map[string]*kernel.Part, len(fresh))
	next.turns, next.wrong = maps.Clone(p.turns), maps.Clone(p.wrong)
	if next.turns == nil {
		next.turns, next.wrong = map[kernel.Slot]turnUse{}, map[string]faults{}
	}
	changed := p.use == nil
	for id, own := range fresh {
		changed = next.count(p.parts.Get(id), own) || changed
		delete(next.wrong, id)
		elements[id] = nil
		if own != nil {
			elements[id] = own.part
			if len(own.faults) > 0 {
				next.wrong[id] = own.faults
			}
		}
	}
	next.parts, next.elements, next.ports = p.parts.With(fresh), p.elements.With(elements), p.ports.with(fresh)
	if changed {
		uses := map[kernel.Slot]string{}
		for slot, t := range next.turns {
			uses[slot] = t.chain
		}
		next.use = kernel.NewPart(uses)
	}
	return &next
}

// fault is all that is wrong.
func (p *Published) fault() error {
	var wrong []errs.Fault
	for _, f := range p.wrong {
		wrong = append(wrong, f...)
	}
	slices.SortFunc(wrong, func(a, b errs.Fault) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Reason, b.Reason))
	})
	var all errs.Collector
	for _, f := range wrong {
		all.Add(f.Field, "%s", f.Reason)
	}
	return all.Err("published ports")
}

// count keeps the uses of turns, and says whether one came or went.
func (p *Published) count(old, next *portion) (changed bool) {
	for _, t := range next.turnsOf() {
		was := p.turns[t.Slot]
		changed = changed || was.ports == 0
		p.turns[t.Slot] = turnUse{t.Value, was.ports + 1}
	}
	for _, t := range old.turnsOf() {
		was := p.turns[t.Slot]
		if was.ports--; was.ports <= 0 {
			changed = true
			delete(p.turns, t.Slot)
			continue
		}
		p.turns[t.Slot] = was
	}
	return changed
}

func (p *portion) turnsOf() []kernel.Entry {
	if p == nil {
		return nil
	}
	return p.turns
}

// entries puts the elements of the packet filter's maps in place.
func (p *Published) entries(k *kernel.Kernel) {
	if p == nil {
		return
	}
	k.Services = p.elements
	if p.use != nil {
		k.Entries["turns"] = p.use
	}
}

// Ports lists the published ports in order of network and number.
func (p *Published) Ports() []Port {
	out := make([]Port, 0, len(p.ports))
	for _, o := range p.ports {
		out = append(out, *o.port)
	}
	return out
}

// arranged are all ports in order.
type arranged []owned

// owned is a port of a service.
type owned struct {
	port  *Port
	owner string
}

func (o owned) compare(p owned) int {
	return cmp.Or(cmp.Compare(o.port.Network, p.port.Network), cmp.Compare(o.port.Port, p.port.Port), cmp.Compare(o.owner, p.owner))
}

// with has the ports of these portions take the place of those that their services had. What has stayed is in order already.
func (a arranged) with(fresh map[string]*portion) arranged {
	var come arranged
	for id, p := range fresh {
		if p != nil {
			for i := range p.ports {
				come = append(come, owned{&p.ports[i], id})
			}
		}
	}
	slices.SortFunc(come, owned.compare)
	out := make(arranged, 0, len(a)+len(come))
	for _, stays := range a {
		if _, replaced := fresh[stays.owner]; replaced {
			continue
		}
		for len(come) > 0 && come[0].compare(stays) < 0 {
			out, come = append(out, come[0]), come[1:]
		}
		out = append(out, stays)
	}
	return append(out, come...)
}

// text has what a part depends on, beside the service.
func (s Self) text() string {
	return fmt.Sprint(s.Node, s.Tunnel, s.UserSpace, s.Local, s.Seal.Why, slices.Sorted(maps.Keys(s.Seal.Ways)))
}

// leftOut names what of a service this machine leaves out for the moment.
func (s Self) leftOut(svc *dispatcherv1.MeshService) string {
	var out, held []string
	if len(s.Withdrawn) > 0 {
		for _, e := range svc.GetEndpoints() {
			if s.Withdrawn[e.GetTaskId()] {
				out = append(out, e.GetTaskId())
			}
		}
	}
	if len(s.Held) > 0 {
		for l := range s.Held {
			if s.answers(svc, l) {
				held = append(held, l.String())
			}
		}
		slices.Sort(held)
	}
	return strings.Join(append(out, held...), " ")
}

// answers says that this machine has a port of the service's.
func (s Self) answers(svc *dispatcherv1.MeshService, l Listener) bool {
	for _, e := range svc.GetEndpoints() {
		for _, pc := range e.GetHostPorts() {
			if network, ok := networkOf(pc.GetProtocol()); ok && e.GetNodeId() == s.Node && l == (Listener{network, uint16(pc.GetPublishedPort())}) {
				return true
			}
		}
	}
	return slices.Contains(listenersOf(svc), l)
}

// partOf is one service's.
func (m *Model) partOf(svc *dispatcherv1.MeshService, self Self, from partSource) *portion {
	p := &portion{elements: map[kernel.Slot]string{}, from: from}
	p.ports = m.portsOf(svc, self, &p.faults)
	for _, port := range p.ports {
		m.flows(p, port)
		if port.Refused || self.Held[port.Listener] {
			continue
		}
		for _, is4 := range []bool{true, false} {
			if port.UserSpace || !m.carry(p, port, self, is4) {
				p.listen(port, is4)
			}
		}
	}
	for _, e := range svc.GetEndpoints() {
		p.lasting(svc, e)
	}
	p.part = kernel.NewPart(p.elements)
	return p
}

// Announced are the elements by which the administrator's chain is asked for ports that are about to be listened on, as if the meshproxy
// carried them all. Those of a service of which prev has the same are in force.
func (p *Published) Announced(prev *Published, opening []Listener) []kernel.Entry {
	about := make(map[Listener]bool, len(opening))
	for _, l := range opening {
		about[l] = true
	}
	made := &portion{elements: map[kernel.Slot]string{}}
	for _, o := range p.ports {
		if !about[o.port.Listener] || prev != nil && prev.parts.Get(o.owner) == p.parts.Get(o.owner) {
			continue
		}
		made.listen(*o.port, true)
		made.listen(*o.port, false)
	}
	out := make([]kernel.Entry, 0, len(made.elements))
	for slot, value := range made.elements {
		out = append(out, kernel.Entry{Slot: slot, Value: value})
	}
	return out
}

// listen says that a port's connections of one family come to the meshproxy.
func (p *portion) listen(port Port, is4 bool) {
	if port.Bind == nil {
		put(p.elements, kernel.Family(kernel.SetListened, is4), "", "%s %d", port.Network, port.Port)
		return
	}
	for _, a := range port.Bind {
		if a.Is4() == is4 {
			put(p.elements, kernel.Family(kernel.SetListenedAt, is4), "", "%s %s %d", a, port.Network, port.Port)
		}
	}
}

// carry has the kernel lead a port's connections of one family to its tasks; false: there is none to lead to.
func (m *Model) carry(p *portion, port Port, self Self, is4 bool) bool {
	n := 0
	for _, b := range port.Backends {
		at, ok := b.of(is4)
		if !ok {
			continue
		}
		put(p.elements, kernel.Family(kernel.SetBackends, is4), fmt.Sprintf("%s %d", at.Addr(), at.Port()), "%s %d %d", port.Network, port.Port, n)
		n++
		if b.Node == self.Node {
			put(p.elements, kernel.Family(kernel.SetHairpins, is4), "", "%s %s", at.Addr(), at.Addr())
			continue
		}
		for _, a := range m.era.addresses[b.Node].all.of(is4) {
			put(p.elements, kernel.Family(kernel.SetReturns, is4), "", "%s %s", a, at.Addr())
		}
	}
	if n == 0 {
		return false
	}
	t := turn.Of(port.Port, n, port.Affinity)
	p.turns = append(p.turns, kernel.Entry{Slot: kernel.Slot{Set: kernel.Family(kernel.SetTurns, is4), Key: t.String()}, Value: t.Chain(is4)})
	if port.Bind == nil {
		put(p.elements, kernel.Family(kernel.SetPorts, is4), t.String(), "%s %d", port.Network, port.Port)
		p.count(port, kernel.Family(kernel.SetCounted, is4), fmt.Sprintf("%s %d", port.Network, port.Port))
		return true
	}
	for _, a := range port.Bind {
		if a.Is4() == is4 {
			put(p.elements, kernel.Family(kernel.SetBound, is4), t.String(), "%s %s %d", a, port.Network, port.Port)
			p.count(port, kernel.Family(kernel.SetCountedAt, is4), fmt.Sprintf("%s %s %d", a, port.Network, port.Port))
		}
	}
	return true
}

// count has the kernel count the connections to a port.
func (p *portion) count(port Port, set, key string) {
	if port.Count != "" {
		slot := kernel.Slot{Set: set, Key: key}
		p.elements[slot] = ""
		p.counted = append(p.counted, slot)
	}
}

// Counted leads from what the kernel counts to the ids of services.
func (p *Published) Counted() map[kernel.Slot]string {
	out := map[kernel.Slot]string{}
	if p != nil {
		for id, part := range p.parts.All() {
			for _, slot := range part.counted {
				out[slot] = id
			}
		}
	}
	return out
}

// flows notes where UDP clients may be led now. What is led elsewhere later must not stay with who has left: a client with
// one port would never notice.
func (m *Model) flows(p *portion, port Port) {
	if port.Network != "udp" {
		return
	}
	for _, b := range port.Backends {
		for _, is4 := range []bool{true, false} {
			if at, ok := b.of(is4); ok {
				put(p.elements, kernel.SetFlows, "", "udp %s %d", at.Addr(), at.Port())
			}
		}
	}
}

// lasting notes where TCP connections and SCTP associations may be: at all tasks that run, also those that take no new ones.
func (p *portion) lasting(svc *dispatcherv1.MeshService, e *dispatcherv1.MeshEndpoint) {
	if wrong(e) != "" {
		return
	}
	for _, pc := range slices.Concat(svc.GetPorts(), e.GetHostPorts()) {
		network, ok := networkOf(pc.GetProtocol())
		if !ok || network == "udp" {
			continue
		}
		b := backendOf(e, uint16(pc.GetTargetPort()))
		for _, is4 := range []bool{true, false} {
			if at, ok := b.of(is4); ok {
				put(p.elements, kernel.SetFlows, "", "%s %s %d", network, at.Addr(), at.Port())
			}
		}
	}
}

// addresses are a machine's: those that it advertises, and all by which its connections may come, those among them.
type addresses struct{ advertised, all byFamily }

// byFamily has each once.
type byFamily struct{ four, six []netip.Addr }

func (b byFamily) of(is4 bool) []netip.Addr {
	if is4 {
		return b.four
	}
	return b.six
}

// know reads the machines' addresses, once for all services that have tasks there.
func know(machines map[string]*dispatcherv1.MeshMachine) map[string]addresses {
	out := make(map[string]addresses, len(machines))
	for id, machine := range machines {
		advertised := slices.Concat(machine.GetAddresses(), machine.GetVteps())
		out[id] = addresses{families(advertised), families(slices.Concat(advertised, bounded(machine.GetOwnAddresses())))}
	}
	return out
}

// maxOwn is how many addresses a machine may have beside those that it advertises: each is in the kernel with each task there.
const maxOwn = 16

// bounded takes the first few alone, of what may be the address of a caller.
func bounded(own []string) []string {
	out := make([]string, 0, maxOwn)
	for _, text := range own {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && a.IsGlobalUnicast() && len(out) < maxOwn {
			out = append(out, text)
		}
	}
	return out
}

// families leaves out names, and what has a zone: that is a link of the other machine.
func families(texts []string) (b byFamily) {
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			continue
		}
		list := &b.six
		if a = a.Unmap(); a.Is4() {
			list = &b.four
		}
		if !slices.Contains(*list, a) {
			*list = append(*list, a)
		}
	}
	return b
}

func put(into map[kernel.Slot]string, set, value, format string, args ...any) {
	into[kernel.Slot{Set: set, Key: fmt.Sprintf(format, args...)}] = value
}
