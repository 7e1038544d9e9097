// Package wireguard makes the machine's WireGuard devices be as they are planned: the kernel's where it has WireGuard, else those of a
// process of our own on a TUN device.
//
// It owns the devices' keys and peers; their links, addresses and routes are those of package tables, which calls Spawn where the
// kernel has no WireGuard. It decides nothing. It must never log or return a private key. The process (Main) outlives the meshproxy
// that has started it, and ends when its link is removed. Its functions are safe for concurrent use.
package wireguard

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// keepalive has both ends shake hands at once and again and again, so that each knows of the other that its key is good; it is what
// WireGuard recommends for paths that forget.
const keepalive = 25 * time.Second

// Devices are the machine's.
type Devices struct {
	// Folder is where the processes of devices in user space have their sockets.
	Folder string
	// Program is this program, which is such a process too. /proc/self/exe is the same build when the file was replaced.
	Program string
	// UserSpace says that the kernel has no WireGuard.
	UserSpace bool
}

// state is what a device has.
type state struct {
	private [32]byte
	port    uint16
	peers   map[seal.PublicKey]has
}

// has is what a device has of a peer.
type has struct {
	seal.Peer
	shook time.Time
}

// Kernel says whether the kernel has WireGuard; asking loads the module where there is one.
func Kernel() error {
	if _, err := netlink.GenlFamilyGet("wireguard"); err != nil {
		return fmt.Errorf("the kernel has no WireGuard: %w", err)
	}
	return nil
}

// Tun says whether a process can have a TUN device.
func Tun() error {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no TUN device can be made: %w", err)
	}
	return f.Close()
}

// Seen are the last handshakes of a device's peers.
func (d Devices) Seen(name string) (map[seal.PublicKey]time.Time, error) {
	now, err := d.read(name)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", name, err)
	}
	out := map[seal.PublicKey]time.Time{}
	for key, p := range now.peers {
		out[key] = p.shook
	}
	return out, nil
}

// Configure changes what differs. An address that goes from one peer to another does so in one step.
func (d Devices) Configure(name string, want seal.Device) error {
	have, err := d.read(name)
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	c := differ(have, want)
	if !c.changes() {
		return nil
	}
	if d.UserSpace {
		err = d.tell(name, c)
	} else {
		err = configure(name, c)
	}
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

func (d Devices) read(name string) (state, error) {
	if d.UserSpace {
		return d.ask(name)
	}
	return readKernel(name)
}

// change is what is to be set of a device.
type change struct {
	private *[32]byte
	port    *uint16
	peers   []peerChange
}

func (c change) changes() bool { return c.private != nil || c.port != nil || len(c.peers) > 0 }

type peerChange struct {
	key    seal.PublicKey
	remove bool
	// endpoint is set where it differs from what was planned before; a peer that has come from elsewhere is answered there.
	endpoint netip.AddrPort
	// replace takes the addresses that it has away first; else these are added, and leave the peer that has them.
	replace bool
	allowed []netip.Prefix
}

func differ(have state, want seal.Device) (c change) {
	if have.private != want.Private {
		c.private = &want.Private
	}
	if have.port != want.Port {
		c.port = &want.Port
	}
	homes := map[netip.Prefix]seal.PublicKey{}
	for key, p := range want.Peers {
		for _, a := range p.Allowed {
			homes[a] = key
		}
	}
	for key, p := range want.Peers {
		old, there := have.peers[key]
		pc := peerChange{key: key}
		if !there || old.Endpoint.Port() != p.Endpoint.Port() || old.Endpoint.Addr().Unmap() != p.Endpoint.Addr() {
			pc.endpoint = p.Endpoint
		}
		for _, a := range p.Allowed {
			if !slices.Contains(old.Allowed, a) {
				pc.allowed = append(pc.allowed, a)
			}
		}
		for _, a := range old.Allowed {
			if _, goes := homes[a]; !goes {
				pc.replace, pc.allowed = true, p.Allowed
			}
		}
		if pc.endpoint.IsValid() || pc.replace || len(pc.allowed) > 0 {
			c.peers = append(c.peers, pc)
		}
	}
	for key := range have.peers {
		if _, stays := want.Peers[key]; !stays {
			c.peers = append(c.peers, peerChange{key: key, remove: true})
		}
	}
	slices.SortFunc(c.peers, func(a, b peerChange) int { // who goes, goes last: what it has was taken by others
		if a.remove != b.remove {
			return map[bool]int{false: -1, true: 1}[a.remove]
		}
		return slices.Compare(a.key[:], b.key[:])
	})
	return c
}

func readKernel(name string) (s state, err error) {
	client, err := wgctrl.New()
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	dev, err := client.Device(name)
	if err != nil {
		return s, err
	}
	s = state{private: dev.PrivateKey, port: uint16(dev.ListenPort), peers: map[seal.PublicKey]has{}}
	for _, p := range dev.Peers {
		h := has{shook: p.LastHandshakeTime}
		if p.Endpoint != nil {
			h.Endpoint = p.Endpoint.AddrPort()
		}
		for _, n := range p.AllowedIPs {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				bits, _ := n.Mask.Size()
				h.Allowed = append(h.Allowed, netip.PrefixFrom(a.Unmap(), bits))
			}
		}
		s.peers[seal.PublicKey(p.PublicKey)] = h
	}
	return s, nil
}

func configure(name string, c change) (err error) {
	client, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	var cfg wgtypes.Config
	if c.private != nil {
		cfg.PrivateKey = (*wgtypes.Key)(c.private)
	}
	if c.port != nil {
		cfg.ListenPort = new(int(*c.port))
	}
	for _, p := range c.peers {
		pc := wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.key), Remove: p.remove, ReplaceAllowedIPs: p.replace}
		if !p.remove {
			pc.PersistentKeepaliveInterval = new(keepalive)
		}
		if p.endpoint.IsValid() {
			pc.Endpoint = net.UDPAddrFromAddrPort(p.endpoint)
		}
		for _, a := range p.allowed {
			pc.AllowedIPs = append(pc.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
		}
		cfg.Peers = append(cfg.Peers, pc)
	}
	return client.ConfigureDevice(name, cfg)
}

// socket is where the process of a device listens.
func (d Devices) socket(name string) string { return cmp.Or(d.Folder, ".") + "/" + name + ".sock" }
