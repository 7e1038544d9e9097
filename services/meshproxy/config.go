package meshproxy

import (
	"path"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
)

// Config is the meshproxy's config file.
type Config struct {
	config.Base `yaml:",inline"`
	// Ingress is true where the machine has no agent and only takes traffic: then the meshproxy opens its session.
	Ingress bool `yaml:"ingress"`
	// MeshSocket is the unix socket on which this machine's agent finds the meshproxy.
	MeshSocket string `yaml:"mesh_socket"`
	// BootID is the file with the id of this boot. Without `ingress` it is not used: the agent has one.
	BootID string `yaml:"boot_id"`
}

// DefaultConfig has every default but the addresses, which a machine must name.
func DefaultConfig() Config {
	return Config{MeshSocket: "/run/shoal/mesh/mesh.sock", BootID: "/run/shoal/mesh/boot-id"}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var faults errs.Collector
	faults.Merge("", c.Base.Validate())
	faults.Check(path.IsAbs(c.MeshSocket), "mesh_socket", "%q is not an absolute path", c.MeshSocket)
	faults.Check(path.IsAbs(c.BootID), "boot_id", "%q is not an absolute path", c.BootID)
	return faults.Err("config")
}
