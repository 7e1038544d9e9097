package ca

import (
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	"github.com/shoalproject/shoal/services/ca/internal/genesis"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
)

// BootstrapConfig is what `shoal init` asks for.
type BootstrapConfig struct {
	// Root is put before every path, so that tests and simulated hosts use any folder. Default: none.
	Root string `yaml:"root"`
	// MachineID is this machine's. Default: the one on disk, else a new one.
	MachineID string `yaml:"machine_id"`
	// Hostname is this machine's. Default: env's.
	Hostname string `yaml:"hostname"`
	// Advertise are this machine's addresses, without a port, best first. Required.
	Advertise []string `yaml:"advertise"`
	// Roles are the processes of this machine. Default: ca, store, scheduler, dispatcher, gateway, agent, meshproxy.
	Roles []string `yaml:"roles"`
	// Ports of processes that do not listen on their default port, by role.
	Ports map[string]int `yaml:"ports"`
	// Operator is the name in the operator's certificate. Default: admin.
	Operator string `yaml:"operator"`
	// MachineNetwork is the IPv4 range for containers, a /24 of it a machine. Default: 10.128.0.0/10.
	MachineNetwork string `yaml:"machine_network"`
	// MachineNetwork6 is the same for IPv6, a /48. Default: a random unique local one.
	MachineNetwork6 string `yaml:"machine_network6"`
	// NetworkPool is the range from which user networks get subnets. Default: 10.0.0.0/9.
	NetworkPool string `yaml:"network_pool"`
	// DataPathPort is the UDP port for VXLAN. Default: 8477.
	DataPathPort int `yaml:"data_path_port"`
}

// BootstrapResult is a cluster that has been begun. It has secrets: the operator's key and the tokens.
type BootstrapResult struct {
	ClusterID string `json:"cluster_id"`
	MachineID string `json:"machine_id"`
	// Operator is the person's name; OperatorCert (PEM: the leaf), OperatorKey (PEM) and Bundle (PEM: the root) are the
	// files of the person's context.
	Operator     string `json:"operator"`
	OperatorCert string `json:"operator_cert"`
	OperatorKey  string `json:"operator_key"`
	Bundle       string `json:"bundle"`
	WorkerToken  string `json:"worker_token"`
	ManagerToken string `json:"manager_token"`
	// Gateways are where the operator's tools go, as host:port.
	Gateways []string `json:"gateways"`
	// Written are the files made, in their order, for taking them back.
	Written []string `json:"written"`
	// Directory is what every process's directory.json says.
	Directory *cav1.Directory `json:"-"`
}

// DefaultBootstrapConfig returns the defaults.
func DefaultBootstrapConfig() BootstrapConfig {
	c := BootstrapConfig{
		Operator: "admin", MachineNetwork: "10.128.0.0/10", NetworkPool: "10.0.0.0/9", DataPathPort: 8477,
	}
	for _, r := range defaultRoles() {
		c.Roles = append(c.Roles, identity.RoleName(r))
	}
	return c
}

func defaultRoles() []authzv1.Role {
	return append(issue.ServiceRoles(), authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY)
}

// Validate returns all faults at once.
func (c BootstrapConfig) Validate() error {
	var f errs.Collector
	f.Check(c.Root == "" || path.IsAbs(c.Root), "root", "%q is not an absolute path", c.Root)
	f.Check(len(c.Advertise) > 0, "advertise", "name at least one address of this machine")
	for i, a := range c.Advertise {
		ip, err := netip.ParseAddr(a)
		f.Check(err != nil || !ip.IsUnspecified(), "advertise["+strconv.Itoa(i)+"]", "%q is no address that others can dial", a)
		f.Check(a != "", "advertise["+strconv.Itoa(i)+"]", "is empty")
	}
	for i, name := range c.Roles {
		role, err := identity.ParseRole(name)
		f.Check(err == nil && !identity.IsPerson(role), "roles["+strconv.Itoa(i)+"]", "%q is not a process's role", name)
		f.Check(slices.Index(c.Roles, name) == i, "roles["+strconv.Itoa(i)+"]", "%q is named twice", name)
	}
	for _, need := range []string{"ca", "store"} {
		f.Check(slices.Contains(c.Roles, need), "roles", "%s is missing: the first machine must have it", need)
	}
	for name, port := range c.Ports {
		_, err := identity.ParseRole(name)
		f.Check(err == nil && port > 0 && port < 1<<16, "ports."+name, "%d is not the port of a role", port)
	}
	operator := identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_OPERATOR, Name: c.Operator}
	_, err := identity.Parse(operator.URI())
	f.Check(err == nil, "operator", "%q is not a name of lower-case letters, digits, -, ., _ and @", c.Operator)
	f.Check(validID(c.MachineID), "machine_id", "%q is not 25 characters of base36", c.MachineID)
	f.Merge("", genesis.CheckRanges(c.MachineNetwork, c.MachineNetwork6, c.NetworkPool))
	f.Check(c.DataPathPort > 0 && c.DataPathPort < 1<<16, "data_path_port", "%d is not a port", c.DataPathPort)
	return f.Err("bootstrap")
}

func validID(id string) bool {
	_, err := identity.Parse(identity.ID{Cluster: "c", Role: authzv1.Role_ROLE_AGENT, Name: id}.URI())
	return id == "" || err == nil && len(id) == 25
}

// Bootstrap begins a cluster, offline: root, issuing certificate, keyset, first certificates of this machine's processes,
// an operator's certificate, join tokens, directory seeds, and the store's first transaction. It touches env's Files, Now,
// Rand and Host, and nothing else. If anything of an earlier cluster is there, it changes nothing and says so (Exists). On
// an error half-way it takes back what it has written.
func Bootstrap(cfg BootstrapConfig, env run.Env) (BootstrapResult, error) {
	if err := cfg.Validate(); err != nil {
		return BootstrapResult{}, err
	}
	folder := path.Join("/", cfg.Root, enroll.DefaultRoot)
	if err := genesis.Free(env.Files, folder); err != nil {
		return BootstrapResult{}, err
	}
	machine, err := machineID(env, folder, cfg.MachineID)
	if err != nil {
		return BootstrapResult{}, err
	}
	plan := genesis.Plan{
		Folder: folder, Machine: machine, Hostname: cfg.Hostname, Operator: cfg.Operator,
		Addresses: map[authzv1.Role][]string{}, Hosts: cfg.Advertise,
		MachineNetwork: cfg.MachineNetwork, MachineNetwork6: cfg.MachineNetwork6, NetworkPool: cfg.NetworkPool,
		DataPathPort: uint32(cfg.DataPathPort),
	}
	if plan.Hostname == "" {
		plan.Hostname = env.Host
	}
	for _, name := range cfg.Roles {
		role, err := identity.ParseRole(name)
		if err != nil {
			return BootstrapResult{}, err
		}
		plan.Roles = append(plan.Roles, role)
		plan.Addresses[role] = cfg.addresses(role)
	}
	made, err := genesis.Make(env, plan)
	if err != nil {
		return BootstrapResult{}, err
	}
	return BootstrapResult{
		ClusterID: made.Cluster, MachineID: machine, Operator: cfg.Operator, OperatorCert: string(made.OperatorCert),
		OperatorKey: string(made.OperatorKey), Bundle: string(made.Bundle), WorkerToken: made.Worker.String(),
		ManagerToken: made.Manager.String(), Gateways: plan.Addresses[authzv1.Role_ROLE_GATEWAY],
		Written: made.Written, Directory: made.Directory,
	}, nil
}

// String and GoString keep the secrets out of anything that prints a result.
func (r BootstrapResult) String() string {
	return "cluster " + r.ClusterID + " on machine " + r.MachineID
}

// GoString does the same for %#v.
func (r BootstrapResult) GoString() string { return r.String() }

func (c BootstrapConfig) addresses(role authzv1.Role) []string {
	port := issue.Port(role)
	if port == 0 {
		return nil
	}
	if own := c.Ports[identity.RoleName(role)]; own != 0 {
		port = own
	}
	var out []string
	for _, a := range c.Advertise {
		out = append(out, net.JoinHostPort(a, strconv.Itoa(port)))
	}
	return out
}

// machineID is the one asked for, which is then kept, or the one on disk, which is made if need be.
func machineID(env run.Env, folder, want string) (string, error) {
	if want == "" {
		return enroll.MachineID(env, folder)
	}
	name := path.Join(folder, "machine-id")
	if err := env.Files.Write(name, []byte(want+"\n"), 0o644); err != nil {
		return "", errs.New(errs.Unavailable, "write %s: %w", name, err)
	}
	return want, nil
}
