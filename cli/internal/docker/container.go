package docker

import (
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// ContainerSpec is what runs. What Docker has no name for stands at the end.
type ContainerSpec struct {
	Image           string
	Labels          map[string]string `json:",omitempty"`
	Command         []string          `json:",omitempty"`
	Args            []string          `json:",omitempty"`
	Hostname        string            `json:",omitempty"`
	Env             []string          `json:",omitempty"`
	Dir             string            `json:",omitempty"`
	User            string            `json:",omitempty"`
	Groups          []string          `json:",omitempty"`
	Privileges      *Privileges       `json:",omitempty"`
	StopSignal      string            `json:",omitempty"`
	TTY             bool              `json:",omitempty"`
	OpenStdin       bool              `json:",omitempty"`
	ReadOnly        bool              `json:",omitempty"`
	Secrets         []FileReference   `json:",omitempty"`
	Configs         []FileReference   `json:",omitempty"`
	Mounts          []Mount           `json:",omitempty"`
	StopGracePeriod *int64            `json:",omitempty"`
	Healthcheck     *HealthConfig     `json:",omitempty"`
	Hosts           []string          `json:",omitempty"`
	DNSConfig       *DNSConfig        `json:",omitempty"`
	Init            bool              `json:",omitempty"`
	Sysctls         map[string]string `json:",omitempty"`
	CapabilityAdd   []string          `json:",omitempty"`
	CapabilityDrop  []string          `json:",omitempty"`
	Ulimits         []Ulimit          `json:",omitempty"`
	OomScoreAdj     int32             `json:",omitempty"`

	Readiness         *HealthConfig `json:",omitempty"`
	PreStop           []string      `json:",omitempty"`
	DrainTime         *int64        `json:",omitempty"`
	ShmSize           int64         `json:",omitempty"`
	Devices           []Device      `json:",omitempty"`
	DeviceCgroupRules []string      `json:",omitempty"`
	CDIDevices        []string      `json:",omitempty"`
}

// Privileges says how far a container is kept apart.
type Privileges struct {
	SELinuxContext  *SELinuxContext `json:",omitempty"`
	Seccomp         *Profile        `json:",omitempty"`
	AppArmor        *Profile        `json:",omitempty"`
	NoNewPrivileges bool            `json:",omitempty"`

	Privileged    bool     `json:",omitempty"`
	PidMode       string   `json:",omitempty"`
	IpcMode       string   `json:",omitempty"`
	UsernsMode    string   `json:",omitempty"`
	MaskedPaths   []string `json:",omitempty"`
	ReadonlyPaths []string `json:",omitempty"`
}

// SELinuxContext is a label.
type SELinuxContext struct {
	Disable                 bool
	User, Role, Type, Level string `json:",omitempty"`
}

// Profile is a filter's mode and content.
type Profile struct {
	Mode    string
	Profile string `json:",omitempty"`
}

// Mount is what is mounted.
type Mount struct {
	Type          string
	Source        string         `json:",omitempty"`
	Target        string         `json:",omitempty"`
	ReadOnly      bool           `json:",omitempty"`
	BindOptions   *BindOptions   `json:",omitempty"`
	VolumeOptions *VolumeOptions `json:",omitempty"`
	TmpfsOptions  *TmpfsOptions  `json:",omitempty"`
}

// BindOptions is what binds have.
type BindOptions struct {
	Propagation            string `json:",omitempty"`
	NonRecursive           bool   `json:",omitempty"`
	CreateMountpoint       bool   `json:",omitempty"`
	ReadOnlyNonRecursive   bool   `json:",omitempty"`
	ReadOnlyForceRecursive bool   `json:",omitempty"`
}

// VolumeOptions is what volumes have.
type VolumeOptions struct {
	NoCopy  bool              `json:",omitempty"`
	Labels  map[string]string `json:",omitempty"`
	Subpath string            `json:",omitempty"`
	// Scope is what Docker does not have: slot; empty: the node's.
	Scope string `json:",omitempty"`
}

// TmpfsOptions is what memory mounts have. Options are as Docker's API has them: lists of one or two words.
type TmpfsOptions struct {
	SizeBytes int64      `json:",omitempty"`
	Mode      uint32     `json:",omitempty"`
	Options   [][]string `json:",omitempty"`
}

// HealthConfig is a probe.
type HealthConfig struct {
	Test                                          []string `json:",omitempty"`
	Interval, Timeout, StartPeriod, StartInterval *int64   `json:",omitempty"`
	Retries                                       uint32   `json:",omitempty"`

	HTTP *HTTPProbe `json:",omitempty"`
	TCP  *TCPProbe  `json:",omitempty"`
}

// HTTPProbe asks for a page.
type HTTPProbe struct {
	Port    uint32
	Path    string            `json:",omitempty"`
	TLS     bool              `json:",omitempty"`
	Headers map[string]string `json:",omitempty"`
}

// TCPProbe opens a connection.
type TCPProbe struct{ Port uint32 }

// DNSConfig says how names are looked up.
type DNSConfig struct {
	Nameservers []string `json:",omitempty"`
	Search      []string `json:",omitempty"`
	Options     []string `json:",omitempty"`
}

// Ulimit is a limit of a process.
type Ulimit struct {
	Name       string
	Hard, Soft int64
}

// Device is a device of the node.
type Device struct{ PathOnHost, PathInContainer, CgroupPermissions string }

func containerOf(c *typesv1.ContainerSpec) ContainerSpec {
	out := ContainerSpec{
		Image: c.GetImage(), Labels: c.GetLabels(), Command: c.GetCommand(), Args: c.GetArgs(), Hostname: c.GetHostname(),
		Env: c.GetEnv(), Dir: c.GetDir(), User: c.GetUser(), StopSignal: c.GetStopSignal(), ReadOnly: c.GetReadOnly(),
		StopGracePeriod: nanos(c.GetStopGracePeriod()), Groups: c.GetGroups(), Privileges: privilegesOf(c.GetPrivileges()),
		TTY: c.GetTty(), OpenStdin: c.GetOpenStdin(), Healthcheck: probeOf(c.GetHealthcheck()), Readiness: probeOf(c.GetReadiness()),
		Hosts: c.GetHosts(), Init: c.GetInit(), Sysctls: c.GetSysctls(), CapabilityAdd: c.GetCapabilityAdd(),
		CapabilityDrop: c.GetCapabilityDrop(), OomScoreAdj: c.GetOomScoreAdj(), PreStop: c.GetPreStop().GetCommand(), DrainTime: nanos(c.GetDrainTime()),
		ShmSize: c.GetShmBytes(), DeviceCgroupRules: c.GetDeviceCgroupRules(), CDIDevices: c.GetCdiDevices(),
		Secrets: fileReferences(c.GetSecrets(), true), Configs: fileReferences(c.GetConfigs(), false),
	}
	if d := c.GetDnsConfig(); d != nil {
		out.DNSConfig = &DNSConfig{Nameservers: d.GetNameservers(), Search: d.GetSearch(), Options: d.GetOptions()}
	}
	for _, u := range c.GetUlimits() {
		out.Ulimits = append(out.Ulimits, Ulimit{Name: u.GetName(), Hard: u.GetHard(), Soft: u.GetSoft()})
	}
	for _, d := range c.GetDevices() {
		out.Devices = append(out.Devices, Device{d.GetHostPath(), d.GetContainerPath(), d.GetPermissions()})
	}
	for _, m := range c.GetMounts() {
		out.Mounts = append(out.Mounts, mountOf(m))
	}
	return out
}

func privilegesOf(p *typesv1.Privileges) *Privileges {
	if p == nil {
		return nil
	}
	out := &Privileges{
		NoNewPrivileges: p.GetNoNewPrivileges(), Privileged: p.GetPrivileged(), MaskedPaths: p.GetMaskedPaths(), ReadonlyPaths: p.GetReadOnlyPaths(),
	}
	if p.GetHostPid() {
		out.PidMode = "host"
	}
	if p.GetHostIpc() {
		out.IpcMode = "host"
	}
	out.UsernsMode = option(p.GetUserNamespace(), "USER_NAMESPACE_")
	if s := p.GetSeccomp(); s != nil {
		out.Seccomp = &Profile{Mode: profileMode(s.GetMode(), "unconfined"), Profile: s.GetProfile()}
	}
	if a := p.GetApparmor(); a != nil {
		out.AppArmor = &Profile{Mode: profileMode(a.GetMode(), "disabled"), Profile: a.GetProfile()}
	}
	if l := p.GetSelinux(); l != nil {
		out.SELinuxContext = &SELinuxContext{Disable: l.GetDisable(), User: l.GetUser(), Role: l.GetRole(), Type: l.GetType(), Level: l.GetLevel()}
	}
	return out
}

// profileMode is Docker's word; it has two for "none".
func profileMode(m typesv1.ProfileMode, none string) string {
	switch m {
	case typesv1.ProfileMode_PROFILE_MODE_UNCONFINED:
		return none
	case typesv1.ProfileMode_PROFILE_MODE_CUSTOM:
		return "custom"
	case typesv1.ProfileMode_PROFILE_MODE_UNSPECIFIED, typesv1.ProfileMode_PROFILE_MODE_DEFAULT:
	}
	return "default"
}

func probeOf(p *typesv1.Probe) *HealthConfig {
	if p == nil {
		return nil
	}
	out := &HealthConfig{
		Test: p.GetTest(), Interval: nanos(p.GetInterval()), Timeout: nanos(p.GetTimeout()), StartPeriod: nanos(p.GetStartPeriod()),
		StartInterval: nanos(p.GetStartInterval()), Retries: p.GetRetries(),
	}
	if h := p.GetHttp(); h != nil {
		out.HTTP = &HTTPProbe{Port: h.GetPort(), Path: h.GetPath(), TLS: h.GetTls(), Headers: h.GetHeaders()}
	}
	if t := p.GetTcp(); t != nil {
		out.TCP = &TCPProbe{Port: t.GetPort()}
	}
	return out
}

func mountOf(m *typesv1.Mount) Mount {
	out := Mount{Type: word(m.GetType().String(), "MOUNT_TYPE_"), Source: m.GetSource(), Target: m.GetTarget(), ReadOnly: m.GetReadOnly()}
	if b := m.GetBind(); b != nil {
		out.BindOptions = &BindOptions{
			NonRecursive: b.GetNonRecursive(), CreateMountpoint: b.GetCreateMountpoint(),
			ReadOnlyNonRecursive: b.GetReadOnlyNonRecursive(), ReadOnlyForceRecursive: b.GetReadOnlyForceRecursive(),
		}
		if b.GetPropagation() != typesv1.MountPropagation_MOUNT_PROPAGATION_UNSPECIFIED {
			out.BindOptions.Propagation = word(b.GetPropagation().String(), "MOUNT_PROPAGATION_")
		}
	}
	if v := m.GetVolume(); v != nil {
		out.VolumeOptions = &VolumeOptions{NoCopy: v.GetNoCopy(), Labels: v.GetLabels(), Subpath: v.GetSubpath()}
		if state.OfSlot(m) {
			out.VolumeOptions.Scope = "slot"
		}
	}
	if t := m.GetTmpfs(); t != nil {
		out.TmpfsOptions = &TmpfsOptions{SizeBytes: t.GetSizeBytes(), Mode: t.GetMode()}
		for _, o := range t.GetOptions() {
			out.TmpfsOptions.Options = append(out.TmpfsOptions.Options, strings.SplitN(o, "=", 2))
		}
	}
	return out
}
