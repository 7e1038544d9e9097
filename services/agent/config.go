package agent

import (
	"fmt"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
)

// Config is the agent's config file.
type Config struct {
	config.Base `yaml:",inline"`
	// Socket is containerd's unix socket.
	Socket string `yaml:"containerd_socket"`
	// Namespace is ours in containerd; nothing outside it is touched.
	Namespace string `yaml:"namespace"`
	// Snapshotter is the part of containerd that holds the containers' file systems.
	Snapshotter string `yaml:"snapshotter"`
	// CertsDir is where a registry that needs one has a folder with a hosts.toml, as containerd has it.
	CertsDir string `yaml:"certs_dir"`
	// Pulls is how many images are pulled at once. Unit: images. Limits: 1 to 64.
	Pulls int `yaml:"pulls"`
	// PullStall is how long a registry may send nothing before a pull is begun anew. Limits: 1s to 1h.
	PullStall time.Duration `yaml:"pull_stall"`
	// CredentialHelpers are programs that have logins for registries, as HOST=HELPER; docker-credential-HELPER is run for those
	// images for which the cluster has no login. Default: none. Example: [registry.example=pass].
	CredentialHelpers []string `yaml:"credential_helpers,omitempty"`
	// ImagesHigh is how full the disk of the images is when unused ones are removed. 0: they never are. Unit: percent. Limits: 0 to 99.
	ImagesHigh int `yaml:"images_high"`
	// ImagesLow is how full it is when no more are removed. Unit: percent. Limits: 0 to images_high.
	ImagesLow int `yaml:"images_low"`
	// ImagesKeep is how long an image stays that nobody uses. Limits: at least 1m.
	ImagesKeep time.Duration `yaml:"images_keep"`
	// RunDir is where things are that end with the machine's power: network namespaces and the containers' small files.
	RunDir string `yaml:"run_dir"`
	// MeshSocket is the unix socket of this machine's meshproxy.
	MeshSocket string `yaml:"mesh_socket"`
	// MeshPort is where the meshproxies of other machines reach this machine's: the port of its `listen`. Init and join write
	// it. Unit: port. Limits: 1 to 65535.
	MeshPort int `yaml:"mesh_port"`
	// BootID is the file with the id of this boot.
	BootID string `yaml:"boot_id"`
	// Logger is the program that containerd starts beside each container to keep its output, as containerd sees it. A path in
	// `data` that is not the agent's own file: the agent puts a copy of shoal-logger there, for a containerd that does not see
	// the agent's files. Default: shoal-logger beside the agent's own file, or that one. Example: /usr/bin/shoal-logger.
	Logger string `yaml:"logger,omitempty"`
	// Parallel is how many containers are made or started at once. Unit: containers. Limits: 1 to 64.
	Parallel int `yaml:"parallel"`
	// UserIDs is the first of the user and group ids that containers with user namespaces of their own get, 65536 each. No user of
	// this machine or its directory, and nobody in /etc/subuid, may have one of them. Unit: user id. Limits: a multiple of 65536.
	UserIDs uint32 `yaml:"user_ids"`
	// UserRanges is for how many such containers there are ids. Unit: containers. Limits: 1 to 2048.
	UserRanges int `yaml:"user_ranges"`
}

// DefaultConfig has every default but the addresses, which a machine must name.
func DefaultConfig() Config {
	return Config{
		Socket: "/run/containerd/containerd.sock", Namespace: "shoal", Snapshotter: "overlayfs",
		CertsDir: "/etc/containerd/certs.d", RunDir: "/run/shoal", MeshSocket: "/run/shoal/mesh/mesh.sock",
		Pulls: 4, PullStall: 30 * time.Second, ImagesHigh: 85, ImagesLow: 75, ImagesKeep: 10 * time.Minute,
		MeshPort: 2385, BootID: "/run/shoal/boot-id", Parallel: 8,
		// Above what others give out: useradd's subordinate ids (login.defs(5): up to 600,100,000), systemd-nspawn's (up to 1,879,048,191)
		// and SSSD's for the users of a directory (up to 2,000,200,000). Below systemd's for foreign disk images (from 2,147,352,576 on)
		// and below 2^31, from which on programs with signed ids go wrong.
		UserIDs: 30720 << 16, UserRanges: 2000,
	}
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var faults errs.Collector
	faults.Merge("", c.Base.Validate())
	faults.Check(len(c.Listen) == 0, "listen", "an agent listens nowhere; remove it")
	for _, p := range []struct{ field, value string }{
		{"containerd_socket", c.Socket},
		{"certs_dir", c.CertsDir},
		{"run_dir", c.RunDir},
		{"mesh_socket", c.MeshSocket},
		{"boot_id", c.BootID},
	} {
		faults.Check(path.IsAbs(p.value), p.field, "%q is not an absolute path", p.value)
	}
	faults.Check(c.Logger == "" || path.IsAbs(c.Logger), "logger", "%q is not an absolute path", c.Logger)
	faults.Check(c.Namespace != "", "namespace", "name containerd's namespace for our containers")
	faults.Check(c.Snapshotter != "", "snapshotter", "name one that containerd has, such as overlayfs")
	faults.Check(c.MeshPort >= 1 && c.MeshPort <= 65535, "mesh_port", "%d is not in 1 to 65535", c.MeshPort)
	faults.Check(c.Parallel >= 1 && c.Parallel <= 64, "parallel", "%d is not in 1 to 64", c.Parallel)
	faults.Check(c.UserIDs > 0 && c.UserIDs%container.IDCount == 0, "user_ids", "%d is no multiple of %d", c.UserIDs, container.IDCount)
	faults.Check(c.UserRanges >= 1 && c.UserRanges <= 2048, "user_ranges", "%d is not in 1 to 2048", c.UserRanges)
	faults.Check(uint64(c.UserIDs)+uint64(max(c.UserRanges, 0))*container.IDCount <= 1<<31, "user_ranges", "%d ranges from user_ids %d on end above 2147483648, the last user id: fewer, or from a lower one on", c.UserRanges, c.UserIDs)
	faults.Check(c.Pulls >= 1 && c.Pulls <= 64, "pulls", "%d is not in 1 to 64", c.Pulls)
	faults.Check(c.PullStall >= time.Second && c.PullStall <= time.Hour, "pull_stall", "%s is not in 1s to 1h", c.PullStall)
	faults.Check(c.ImagesHigh >= 0 && c.ImagesHigh <= 99, "images_high", "%d is not in 0 to 99", c.ImagesHigh)
	faults.Check(c.ImagesLow >= 0 && (c.ImagesHigh == 0 || c.ImagesLow <= c.ImagesHigh), "images_low", "%d is not in 0 to images_high", c.ImagesLow)
	faults.Check(c.ImagesKeep >= time.Minute, "images_keep", "%s is less than 1m", c.ImagesKeep)
	for i, h := range c.CredentialHelpers {
		host, helper, ok := strings.Cut(h, "=")
		faults.Check(ok && host != "" && regexp.MustCompile(`^[a-zA-Z0-9._-]+$`).MatchString(helper), fmt.Sprintf("credential_helpers[%d]", i),
			"%q is not HOST=HELPER, as registry.example=pass", h)
	}
	return faults.Err("config")
}

// pulls is how images are pulled, as the executor has it.
func (c Config) pulls() pull.Config {
	out := pull.Config{CertsDir: c.CertsDir, AtOnce: c.Pulls, Stall: c.PullStall, Helpers: map[string]string{}}
	for _, h := range c.CredentialHelpers {
		host, helper, _ := strings.Cut(h, "=")
		out.Helpers[host] = helper
	}
	return out
}

// volumes are the folder of volumes, and that of the mounts by which containers see them, which ends with the machine's power.
func (c Config) volumes() (data, pins string) {
	return path.Join(c.Folder("agent"), "volumes"), path.Join(c.RunDir, "volumes")
}

// guests is the folder of what is kept of other tools' containers.
func (c Config) guests() string { return path.Join(c.RunDir, "attached") }
