package meshproxy

import (
	"path"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
)

// mostConnections is more than any kernel tracks.
const mostConnections = 10_000_000

// A container that knows fewer neighbours than any needs, and more than any subnet of ours has by default.
const fewestNeighbours, mostNeighbours = 16, 1_000_000

// Config is the meshproxy's config file.
type Config struct {
	config.Base `yaml:",inline"`
	// Ingress is true where the machine has no agent and only takes traffic: then the meshproxy opens its session.
	Ingress bool `yaml:"ingress"`
	// MeshSocket is the unix socket on which this machine's agent finds the meshproxy.
	MeshSocket string `yaml:"mesh_socket"`
	// BootID is the file with the id of this boot. Without `ingress` it is not used: the agent has one.
	BootID string `yaml:"boot_id"`
	// ConnectionsPerContainer is how many tracked connections each address of a container on the machine network may have that it
	// began; what it begins beyond that is dropped. 0: any number. Unit: connections.
	// Limits: 0 to 10000000.
	ConnectionsPerContainer int `yaml:"connections_per_container"`
	// NeighboursPerContainer is with how many neighbours of each family a container may begin to speak at a time; what it sends to
	// more is dropped until half a minute has passed. Who has answered does not count. Unit: neighbours.
	// Limits: 16 to 1000000.
	NeighboursPerContainer int `yaml:"neighbours_per_container"`
}

// DefaultConfig has every default but the addresses, which a machine must name.
func DefaultConfig() Config {
	return Config{MeshSocket: "/run/shoal/mesh/mesh.sock", BootID: "/run/shoal/mesh/boot-id", ConnectionsPerContainer: 32768, NeighboursPerContainer: 4096}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var faults errs.Collector
	faults.Merge("", c.Base.Validate())
	faults.Check(path.IsAbs(c.MeshSocket), "mesh_socket", "%q is not an absolute path", c.MeshSocket)
	faults.Check(path.IsAbs(c.BootID), "boot_id", "%q is not an absolute path", c.BootID)
	faults.Check(c.ConnectionsPerContainer >= 0 && c.ConnectionsPerContainer <= mostConnections, "connections_per_container",
		"%d is not between 0 and %d", c.ConnectionsPerContainer, mostConnections)
	faults.Check(c.NeighboursPerContainer >= fewestNeighbours && c.NeighboursPerContainer <= mostNeighbours, "neighbours_per_container",
		"%d is not between %d and %d", c.NeighboursPerContainer, fewestNeighbours, mostNeighbours)
	return faults.Err("config")
}
