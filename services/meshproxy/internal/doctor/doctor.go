// Package doctor looks whether this machine's kernel has what the mesh and the networks need: VXLAN, bridges, pairs of
// virtual links, nftables with address translation, connection tracking, IPv6.
//
// It does not guess from lists of modules: it makes one of each in a network namespace that nobody sees and that ends with
// the look, so that a module which loads on demand is there, and one that is forbidden is not. It is what `shoal-meshproxy
// doctor` prints and `shoal doctor`, `init` and `join` ask for. It changes nothing outside that namespace.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/examine"
	"github.com/shoalproject/shoal/services/meshproxy/internal/surroundings"
	"github.com/shoalproject/shoal/services/meshproxy/internal/wireguard"
)

// part is something that the kernel must have, or had better have.
type part struct {
	name, module string
	why          string
	try          func() error
	better       bool
}

func parts() []part {
	return []part{
		{"vxlan", "vxlan", "networks between machines are made of it", func() error {
			return add(&netlink.Vxlan{LinkAttrs: named("probe-vxlan"), VxlanId: 1, Port: 8477})
		}, false},
		{"bridge", "bridge", "containers of a machine are joined by it", func() error {
			return add(&netlink.Bridge{LinkAttrs: named("probe-bridge")})
		}, false},
		{"veth", "veth", "each container has one", func() error {
			return add(&netlink.Veth{LinkAttrs: named("probe-veth"), PeerName: "probe-peer"})
		}, false},
		{"nftables", "nf_tables", "published ports and networks are guarded by it", func() error { return filter(nil) }, false},
		{"bridge filter", "nf_tables", "containers are kept from claiming their neighbours' addresses by it", bridged, true},
		{"nat", "nft_chain_nat", "containers reach the world by it", translate, false},
		{"conntrack", "nft_ct", "replies are told from new connections by it", func() error {
			return filter([]expr.Any{
				&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED), Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
				&expr.Verdict{Kind: expr.VerdictAccept},
			})
		}, false},
	}
}

// Look makes all checks.
func Look(ctx context.Context) []finding.Finding {
	// In a thread of its own, which ends with the goroutine because it is never unlocked, and the namespace with it.
	r := <-run.Async(ctx, func(context.Context) ([]finding.Finding, error) {
		runtime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		var found []finding.Finding
		for _, p := range parts() {
			found = append(found, p.look())
		}
		return found, nil
	})
	if r.Err != nil {
		r.Value = []finding.Finding{finding.Warned("network", "the kernel's parts could not be tried in a namespace of their own: "+r.Err.Error(),
			"whether vxlan, bridge, veth and nftables are there shows when they are needed", "run it as root with CAP_SYS_ADMIN")}
	}
	found := append(r.Value, ipv6(), encryption())
	if f, err := surroundings.Facts(); err == nil { // what cannot be read is told by what needs it
		found = append(found, examine.Room(f)...)
	}
	return found
}

func (p part) look() finding.Finding {
	err := p.try()
	switch {
	case err == nil:
		return finding.Well(p.name, "the kernel has it")
	case errors.Is(err, unix.EPERM):
		return finding.Faulty(p.name, "making one is not permitted: "+err.Error(), p.why, "run it as root with CAP_NET_ADMIN")
	}
	say := finding.Faulty
	if p.better {
		say = finding.Warned
	}
	return say(p.name, "the kernel could not make one: "+err.Error(), p.why,
		fmt.Sprintf("modprobe %s; a kernel without it needs the package linux-modules-extra, or another kernel", p.module))
}

func named(name string) netlink.LinkAttrs {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return attrs
}

func add(l netlink.Link) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return h.LinkAdd(l)
}

// filter makes a table with a chain, and a rule if one is given.
func filter(rule []expr.Any) error {
	return table(nftables.TableFamilyINet, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, rule)
}

func bridged() error {
	return table(nftables.TableFamilyBridge, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityFilter, nil)
}

func translate() error {
	return table(nftables.TableFamilyINet, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, []expr.Any{&expr.Masq{}})
}

func table(family nftables.TableFamily, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rule []expr.Any) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := conn.AddTable(&nftables.Table{Name: "probe", Family: family})
	c := conn.AddChain(&nftables.Chain{Name: "probe-" + string(kind), Table: t, Type: kind, Hooknum: hook, Priority: priority})
	if rule != nil {
		conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: rule})
	}
	return conn.Flush()
}

// ipv6 can be switched off for good reasons; then networks have IPv4 alone.
func ipv6() finding.Finding {
	const check = "ipv6"
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	switch {
	case err != nil:
		return finding.Warned(check, "the kernel has none", "networks have IPv4 alone", "boot without ipv6.disable=1")
	case strings.TrimSpace(string(data)) != "0":
		return finding.Warned(check, "it is switched off", "networks have IPv4 alone", "sysctl net.ipv6.conf.all.disable_ipv6=0")
	}
	return finding.Well(check, "the kernel has it")
}

// encryption is by the kernel or by a process of ours; without either a machine takes no part in encrypted networks.
func encryption() finding.Finding {
	const check = "wireguard"
	lacks := wireguard.Kernel()
	if lacks == nil {
		return finding.Well(check, "the kernel has it")
	}
	if err := wireguard.Tun(); err != nil {
		return finding.Warned(check, fmt.Sprintf("%s; %s", lacks, err), "this machine takes no part in encrypted networks, and its tasks on them wait",
			"modprobe wireguard, or modprobe tun for encryption in user space")
	}
	return finding.Well(check, "the kernel has none, so that a process of shoal's encrypts")
}
