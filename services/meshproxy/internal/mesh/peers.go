package mesh

import (
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/shards"
)

// Services are those with published ports by id.
func (m *Model) Services() shards.Map[*dispatcherv1.MeshService] {
	if m == nil {
		return shards.Map[*dispatcherv1.MeshService]{}
	}
	return m.services
}

// MachineNetwork is the machine network's IPv4 range as a CIDR; empty if none is known.
func (m *Model) MachineNetwork() string {
	if m == nil {
		return ""
	}
	return m.machineNetwork
}

// DataPort is the UDP port of the tunnels.
func (m *Model) DataPort() uint16 {
	if m == nil || m.dataPort == 0 || m.dataPort > 65535 {
		return defaultDataPort
	}
	return uint16(m.dataPort)
}
