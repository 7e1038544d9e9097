package insight

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

const (
	// doorPatience bounds the wait for a port.
	doorPatience = 2 * time.Second
	// tries is how often a packet may stay unanswered: machines limit their refusals.
	tries = 3
	// least is the smallest packet that the search for the largest begins with, which every IPv6 path carries, and near how
	// closely it ends.
	least, near = 1200, 8
)

// way tries one machine: the ports of its processes, and the tunnel to it, which takes packets of the full size; 0: there is none.
func (s *Server) way(ctx context.Context, m *mesh.Model, peer string, full int) examine.Way {
	w := examine.Way{Peer: peer, At: slices.Concat(m.Machines()[peer].GetAddresses(), []string{peer})[0], DataPort: m.DataPort()}
	for _, address := range m.Peers(s.Node)[peer] {
		w.Ports = append(w.Ports, s.door(ctx, "meshproxy", address))
	}
	for _, role := range s.needs() {
		for _, member := range s.Members(role) {
			if member.GetMachineId() != peer {
				continue
			}
			for _, address := range member.GetAddresses() {
				w.Ports = append(w.Ports, s.door(ctx, nameOf(role), address))
			}
		}
	}
	from, mine := gatewayOf(m, s.Node)
	to, theirs := gatewayOf(m, peer)
	if !mine || !theirs || s.Echo == nil || full == 0 {
		return w
	}
	w.Tunnel = true
	if w.Heard = s.comes(from, to, least/2); !w.Heard {
		// A firewall within the tunnel may hold back what nobody listens for; the meshproxy's port there is open.
		w.Heard = s.door(ctx, "meshproxy", netip.AddrPortFrom(to, port(w)).String()).Fault == ""
		return w
	}
	w.Full, w.Largest = full, full
	if !s.comes(from, to, full) {
		w.Largest = s.search(from, to, full)
	}
	return w
}

// needs are the roles whose ports this machine must reach: all machines the CA and the dispatchers, managers each other's.
func (s *Server) needs() []authzv1.Role {
	all := []authzv1.Role{authzv1.Role_ROLE_CA, authzv1.Role_ROLE_DISPATCHER}
	for _, of := range []authzv1.Role{authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_GATEWAY, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER} {
		for _, m := range s.Members(of) {
			if m.GetMachineId() == s.Node {
				return append(all, authzv1.Role_ROLE_STORE)
			}
		}
	}
	return all
}

func nameOf(r authzv1.Role) string { return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_")) }

// door tries one port.
func (s *Server) door(ctx context.Context, process, address string) examine.Door {
	d := examine.Door{Process: process, Address: address}
	ctx, cancel := context.WithTimeout(ctx, doorPatience)
	defer cancel()
	conn, err := s.Env.Net.Dial(ctx, "tcp", address)
	if err != nil {
		d.Fault = last(err.Error())
		return d
	}
	_ = conn.Close() // nothing was said
	return d
}

// last is the end of a chain of words: the address is told beside it.
func last(text string) string { return text[strings.LastIndex(text, ": ")+1:] }

// port is where the meshproxy of the other machine listens.
func port(w examine.Way) uint16 {
	i := slices.IndexFunc(w.Ports, func(d examine.Door) bool { return d.Process == "meshproxy" })
	if i < 0 {
		return 0
	}
	at, _ := netip.ParseAddrPort(w.Ports[i].Address) // 0 is no port, and not reached
	return at.Port()
}

// comes says whether packets of a size come through.
func (s *Server) comes(from, to netip.Addr, size int) bool {
	for range tries {
		ok, err := s.Echo(from, to, size)
		if err != nil {
			s.Env.Log.Debug("tunnel not tried", "error", err)
			return false
		}
		if ok {
			return true
		}
	}
	return false
}

// search finds the largest packet that comes through, by halves.
func (s *Server) search(from, to netip.Addr, full int) int {
	low, high := least/2, full
	if s.comes(from, to, least) {
		low = least
	}
	for high-low > near {
		if middle := (low + high) / 2; s.comes(from, to, middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
