package kernel

import (
	"slices"
	"strconv"
	"strings"
)

// Names of links. The numbers are network identifiers. Host ends are made by the agent.
const (
	MachineBridge = "shoal0"
	MachineTunnel = "shoal-mesh"
	bridgePrefix  = "shoalbr"
	tunnelPrefix  = "shoalvx"
	hostEndPrefix = "shoalv"
	// SealPrefix begins the names of WireGuard devices; a number follows.
	SealPrefix = "shoal-wg"
)

// What the rules share with who speaks to the machine.
const (
	// ReturnFlag is on each packet and connection that has come by a peer's tunnel; the peer's number is above bit 16.
	ReturnFlag = 0x4000_0000
	// ReturnMask has the flag and the number. The other bits of a mark are other people's.
	ReturnMask = 0x7fff_0000
	// ReturnMark changes with each change of the rule on the tunnel.
	ReturnMark = "return 2"
	// EchoPort is the UDP port within the tunnel that each machine refuses, so that others see that they reach it.
	EchoPort = 8479
	// TransparentFlag is on packets that containers send to a connection which the meshproxy has opened with its client's
	// address.
	TransparentFlag = 0x8000_0000
)

// NoSetting is read for a sysctl of a part that this kernel lacks (IPv6); it counts as right.
const NoSetting = "-"

// Bridge is the name of a network's bridge.
func Bridge(vni uint32) string { return bridgePrefix + strconv.FormatUint(uint64(vni), 10) }

// Tunnel is the name of a network's VXLAN device.
func Tunnel(vni uint32) string { return tunnelPrefix + strconv.FormatUint(uint64(vni), 10) }

// Ours says that a link's name is one that shoal gives: ours, and the host ends that the agent makes. Only such links are
// ever removed.
func Ours(name string) bool {
	if name == MachineBridge || name == MachineTunnel || isSeal(name) {
		return true
	}
	for _, prefix := range []string{bridgePrefix, tunnelPrefix} {
		if n, ok := strings.CutPrefix(name, prefix); ok && isNumber(n) {
			return true
		}
	}
	return len(name) > len(hostEndPrefix) && strings.HasPrefix(name, hostEndPrefix)
}

// Managed says that a link is one that the meshproxy makes: bridges and tunnels, not the agent's host ends.
func Managed(name string) bool {
	n, ok := strings.CutPrefix(name, tunnelPrefix)
	return Ours(name) && (!strings.HasPrefix(name, hostEndPrefix) || (ok && isNumber(n)))
}

// HostEnd says that a link is the host's end of a container's, which the agent makes.
func HostEnd(name string) bool { return Ours(name) && !Managed(name) }

func isNumber(s string) bool {
	return s != "" && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < '0' || c > '9' })
}

func isSeal(name string) bool {
	n, ok := strings.CutPrefix(name, SealPrefix)
	return ok && isNumber(n)
}
