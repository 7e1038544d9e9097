// Package seal says how a machine's traffic to the others is encrypted: which keys it uses, when one follows another, and which key of
// itself and of each other machine is used between them.
//
// It is pure: what has been seen of the devices and the time are arguments. It must never lead to a machine that has told no key, and
// never forget a key that another machine may still use. A Plan is nobody's once made.
//
// # How a key follows another without a lost packet
//
// WireGuard knows one key a device and one key a peer, and takes a source address from one peer alone. So each key of a machine has a
// device, a port and an address of its own, and a machine beside that an address that stays:
//
//	Step 1: the machine makes the next key, with a second device, and tells both public halves.
//	Step 2: who hears of it takes the new key as one more peer, which may send from the new key's address. Both shake hands.
//	Step 3: who has seen that handshake sends by the new key: the machine by turning its route to the other, the other by turning the
//	        address that stays to the new peer. Each is one step in the kernel, and both keys are taken all the while.
//	Step 4: when the newest key of each of the others has shaken hands with the new key, and both ends have had time to see it and to
//	        turn, the old one goes with its device.
//
// Two machines may do so at the same time: each of both keys shakes hands with each of the other's. Any of these four handshakes may be
// long in coming: when both ends begin one at the same moment each takes itself for the one that was asked, and neither tries again for 5
// to 25 s. Until then they send by what has shaken hands, which may be the new key of the one and the old key of the other. So a handshake
// of the new key with an old one says nothing of whether its own old one is still used; that of the two newest does.
package seal

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Port is the first of the two UDP ports of WireGuard: a key's is this one or the next, by turns.
const Port = 8478

const (
	// life is how long a key is used where the cluster does not say.
	life = 24 * time.Hour
	// alive is how long a handshake says that the other holds its key: WireGuard shakes hands again after 120 s, and takes nothing
	// more by a handshake of 180 s (whitepaper, 6.1).
	alive = 180 * time.Second
	// linger is how long an old key is kept after the newest have shaken hands, in which both ends turn to them. The end that was asked
	// knows of the handshake by the first packet that follows: at the latest the keepalive, every 25 s.
	linger = 30 * time.Second
	// overlap is the most, for machines that are away.
	overlap = time.Hour
)

// PublicKey names a key.
type PublicKey [32]byte

// Key is one of this machine's.
type Key struct {
	Generation uint64
	Made       time.Time
	// Rotation is the cluster's count when it was made.
	Rotation uint64
	Private  [32]byte
	Public   PublicKey
}

// Device is one of this machine's, as it should be.
type Device struct {
	Private [32]byte
	Port    uint16
	Peers   map[PublicKey]Peer
}

// Peer is a key of another machine.
type Peer struct {
	Endpoint netip.AddrPort
	// Allowed are the addresses that it sends from and is sent to.
	Allowed []netip.Prefix
}

// Seen are the handshakes, by device and key of the other.
type Seen map[string]map[PublicKey]Shake

// Shake is when two keys shook hands, for the first time and the last.
type Shake struct{ First, Last time.Time }

// Plan is what follows.
type Plan struct {
	Seal    mesh.Seal
	Devices map[string]Device
	// Make says that another key is due. Drop is the generation of one that is not needed any more; 0: none.
	Make bool
	Drop uint64
	// Turning says that a key follows another somewhere, so that handshakes matter.
	Turning bool
	// Faults are machines that cannot be spoken to, and why.
	Faults []string
}

// device is where a key of this generation has its own.
func device(generation uint64) (name string, port uint16) {
	return fmt.Sprintf("%s%d", kernel.SealPrefix, generation%2), Port + uint16(generation%2)
}

// other is another machine whose keys are known.
type other struct {
	id       string
	keys     []*typesv1.TunnelKey // older first, one or two
	fixed    netip.Addr
	endpoint netip.Addr
}

// Make plans. Keys are this machine's in the order of generations, at most two.
func Make(m *mesh.Model, self mesh.Self, keys []Key, seen Seen, now time.Time) Plan {
	p := Plan{Devices: map[string]Device{}, Make: len(keys) == 0}
	p.Seal = mesh.Seal{Sources: map[string]netip.Addr{}, Ways: map[string]mesh.SealWay{}}
	if len(keys) == 0 || m == nil {
		p.Seal.Why = "it has no key yet"
		return p
	}
	if !m.Sealed() {
		return p
	}
	p.Seal.Address, _ = m.SealAddresses(self.Node, 0)
	others := p.others(m, self)
	for _, k := range keys {
		name, port := device(k.Generation)
		_, source := m.SealAddresses(self.Node, k.Generation)
		d := Device{Private: k.Private, Port: port, Peers: map[PublicKey]Peer{}}
		for _, o := range others {
			o.into(d, m, used(o, seen[name], now))
		}
		p.Seal.Sources[name], p.Devices[name] = source, d
	}
	for _, o := range others {
		way := mesh.SealWay{Address: o.fixed, Device: chosen(keys, o, seen, now)}
		for _, k := range o.keys {
			_, source := m.SealAddresses(o.id, k.GetGeneration())
			way.Sources = append(way.Sources, source)
		}
		p.Seal.Ways[o.id] = way
		p.Turning = p.Turning || len(o.keys) > 1
	}
	p.Turning = p.Turning || len(keys) > 1
	p.rotate(m, self.Node, keys, others, seen, now)
	return p
}

// others are the machines that this one shares encrypted traffic with, and that have told a key. A key is one machine's alone.
func (p *Plan) others(m *mesh.Model, self mesh.Self) []other {
	var out []other
	holders := map[PublicKey]string{}
	places := map[netip.Addr]string{p.Seal.Address: self.Node}
	machines, shares := m.Machines(), sharing(m)
	for _, id := range slices.Sorted(maps.Keys(machines)) {
		if id == self.Node || !shares[id] {
			continue
		}
		o := other{id: id}
		var at bool
		o.endpoint, at = m.Vtep(id, self.Tunnel.Is4())
		o.fixed, _ = m.SealAddresses(id, 0)
		if !at {
			p.Faults = append(p.Faults, fmt.Sprintf("machine %s has no address of this machine's family", id))
			continue
		}
		if holder, taken := places[o.fixed]; taken {
			p.Faults = append(p.Faults, fmt.Sprintf("machine %s would have the address of %s within WireGuard", id, holder))
			continue
		}
		for _, k := range machines[id].GetTunnelKeys() {
			public, sound := publicOf(k)
			if holder, taken := holders[public]; !sound || (taken && holder != id) {
				p.Faults = append(p.Faults, fmt.Sprintf("a key of machine %s is no key, or another machine's", id))
				continue
			}
			holders[public] = id
			o.keys = append(o.keys, k)
		}
		if len(o.keys) == 0 {
			p.Faults = append(p.Faults, fmt.Sprintf("machine %s has told no key", id))
			continue
		}
		slices.SortFunc(o.keys, func(a, b *typesv1.TunnelKey) int { return cmp.Compare(a.GetGeneration(), b.GetGeneration()) })
		o.keys = o.keys[max(0, len(o.keys)-2):]
		places[o.fixed] = id
		out = append(out, o)
	}
	return out
}

// sharing are the machines that this one has encrypted traffic with, found once for all of them.
func sharing(m *mesh.Model) map[string]bool {
	out := map[string]bool{}
	if m.Encryption().GetMesh() {
		for id := range m.Machines() {
			out[id] = true
		}
		return out
	}
	for _, n := range m.Networks() {
		if !n.GetEncrypted() {
			continue
		}
		for _, e := range n.GetEntries() {
			out[e.GetNodeId()] = true
		}
	}
	return out
}

func publicOf(k *typesv1.TunnelKey) (public PublicKey, sound bool) {
	return PublicKey(bytes.Join([][]byte{k.GetPublicKey(), make([]byte, 32)}, nil)), len(k.GetPublicKey()) == 32
}

// into makes the other's keys peers of a device. The one that is used has the address that stays.
func (o other) into(d Device, m *mesh.Model, used int) {
	for i, k := range o.keys {
		public, _ := publicOf(k)
		_, source := m.SealAddresses(o.id, k.GetGeneration())
		_, port := device(k.GetGeneration())
		peer := Peer{Endpoint: netip.AddrPortFrom(o.endpoint, port), Allowed: []netip.Prefix{netip.PrefixFrom(source, 32)}}
		if i == used {
			peer.Allowed = append(peer.Allowed, netip.PrefixFrom(o.fixed, 32))
		}
		d.Peers[public] = peer
	}
}

// used is which of the other's keys a device sends by: the newest that has shaken hands, and the oldest before any has.
func used(o other, seen map[PublicKey]Shake, now time.Time) int {
	for i := len(o.keys) - 1; i > 0; i-- {
		if public, _ := publicOf(o.keys[i]); seen[public].fresh(now) {
			return i
		}
	}
	return 0
}

// chosen is the device by which the other is reached: that of the newest key of this machine that has shaken hands with one of the
// other's, and of the oldest before any has.
func chosen(keys []Key, o other, seen Seen, now time.Time) string {
	for i := len(keys) - 1; i > 0; i-- {
		if name, _ := device(keys[i].Generation); o.shook(seen[name], now) {
			return name
		}
	}
	name, _ := device(keys[0].Generation)
	return name
}

func (o other) shook(seen map[PublicKey]Shake, now time.Time) bool {
	return slices.ContainsFunc(o.keys, func(k *typesv1.TunnelKey) bool {
		public, _ := publicOf(k)
		return seen[public].fresh(now)
	})
}

// settled says that both ends send by the newest key of the other and that one of this machine that has seen these handshakes.
func (o other) settled(seen map[PublicKey]Shake, now time.Time) bool {
	newest, _ := publicOf(o.keys[len(o.keys)-1])
	shake := seen[newest]
	return shake.fresh(now) && now.Sub(shake.First) >= linger
}

// replace makes another key in the place of the newest; of two the older one goes first, for there are two devices.
func (p *Plan) replace(keys []Key) {
	if len(keys) > 1 {
		p.Drop = keys[0].Generation
		return
	}
	p.Make = true
}

func (s Shake) fresh(now time.Time) bool { return !s.Last.IsZero() && now.Sub(s.Last) < alive }

// rotate says when the next key is made, and when the old one goes. Neither happens before the cluster knows the newest: who is told
// of a key that it has never heard of cannot take it.
func (p *Plan) rotate(m *mesh.Model, node string, keys []Key, others []other, seen Seen, now time.Time) {
	newest := keys[len(keys)-1]
	tells := func(node string) bool {
		return slices.ContainsFunc(m.Machines()[node].GetTunnelKeys(), func(k *typesv1.TunnelKey) bool {
			return bytes.Equal(k.GetPublicKey(), newest.Public[:])
		})
	}
	if !tells(node) {
		// Unless it is another's, as on the copy of a machine's disk: then it is never taken as ours.
		if slices.ContainsFunc(slices.Collect(maps.Keys(m.Machines())), tells) {
			p.replace(keys)
		}
		return
	}
	age := now.Sub(newest.Made)
	if len(keys) == 1 {
		p.Make = age >= cmp.Or(m.Encryption().GetKeyLife().AsDuration(), life) || newest.Rotation < m.Encryption().GetKeyRotation()
		return
	}
	name, _ := device(newest.Generation)
	all := !slices.ContainsFunc(others, func(o other) bool { return !o.settled(seen[name], now) })
	if age >= overlap || (all && age >= linger) {
		p.Drop = keys[0].Generation
	}
}
