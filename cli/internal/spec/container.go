package spec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// container defines the flags of one value that say how a container is made.
func (f *Flags) container() {
	f.set.BoolP("tty", "t", false, "give the containers a terminal")
	f.set.BoolP("interactive", "i", false, "keep the containers' input open")
	f.set.Bool("init", false, "run a small init as process 1, which passes on signals and takes away ended processes")
	f.set.String("oom-score-adj", "", "how soon the kernel takes it when memory is short, -1000 to 1000")
	f.set.String("shm-size", "", "size of /dev/shm: 128m (default 64m)")
	f.set.String("memory-swap", "", "swap beside the memory limit: 1g; -1: no limit")
	f.set.String("memory-swappiness", "", "how gladly memory is swapped, 0 to 100; -1: the node's")
	f.set.Bool("privileged", false, "all capabilities and devices, no filter; the cluster must allow it")
	f.set.String("pid", "", "host: share the node's process ids; the cluster must allow it")
	f.set.String("ipc", "", "host: share the node's shared memory; the cluster must allow it")
	f.set.String("userns", "", "private: root in the container is no user of the node; host: it is the node's (default host)")
	f.set.StringArray("security-opt", nil, "no-new-privileges[=false], seccomp=unconfined|default|FILE, apparmor=unconfined|default|PROFILE, label=disable|user:U|role:R|type:T|level:L")
	f.set.StringArray("cap-add", nil, "add a capability: NET_ADMIN, or ALL; RESET: those of before are forgotten")
	f.set.StringArray("cap-drop", nil, "drop a capability: NET_RAW, or ALL; RESET: those of before are forgotten")
	f.set.String("log-driver", "", "how output is kept: local, journald or none (default the cluster's, local)")
	f.set.StringArray("log-opt", nil, "option of the log driver: max-size=10m, max-file=5, compress=true, max-rate=128m")
	f.probes()
}

// applyLog replaces the driver with its options: those of another one have no meaning.
func (f *Flags) applyLog(t *typesv1.TaskSpec) {
	if !f.any("log-driver", "log-opt") {
		return
	}
	d := &typesv1.LogDriver{Name: f.text("log-driver")}
	if !f.set.Changed("log-driver") {
		d.Name = t.GetLogDriver().GetName()
	}
	for _, text := range f.list("log-opt") {
		key, value, ok := strings.Cut(text, "=")
		f.faults.Check(ok && key != "", "log-opt", "%q is not key=value", text)
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		d.Options[key] = value
	}
	t.LogDriver = d
}

// applyContainer sets what has one value.
func (f *Flags) applyContainer(t *typesv1.TaskSpec) {
	c := t.Container
	for name, field := range map[string]*bool{"tty": &c.Tty, "interactive": &c.OpenStdin, "init": &c.Init} {
		if f.set.Changed(name) {
			*field, _ = f.set.GetBool(name)
		}
	}
	if f.set.Changed("oom-score-adj") {
		n, err := strconv.ParseInt(f.text("oom-score-adj"), 10, 32)
		f.faults.Check(err == nil, "oom-score-adj", "%q is no whole number", f.text("oom-score-adj"))
		c.OomScoreAdj = int32(n)
	}
	f.bytes("shm-size", func(n int64) { c.ShmBytes = n })
	f.applySwap(t)
	f.applyPrivileges(c)
	f.applyCapabilities(c)
	f.applyProbes(c)
	f.applyLog(t)
}

func (f *Flags) bytes(flag string, set func(int64)) {
	if !f.set.Changed(flag) {
		return
	}
	n, err := units.RAMInBytes(f.text(flag))
	f.faults.Check(err == nil, flag, "%q is no amount of memory, such as 512m", f.text(flag))
	set(n)
}

func (f *Flags) applySwap(t *typesv1.TaskSpec) {
	if !f.any("memory-swap", "memory-swappiness") {
		return
	}
	if t.Resources == nil {
		t.Resources = &typesv1.ResourceRequirements{}
	}
	if f.text("memory-swap") == "-1" {
		none := int64(-1)
		t.Resources.SwapBytes = &none
	} else {
		f.bytes("memory-swap", func(n int64) { t.Resources.SwapBytes = &n })
	}
	if f.set.Changed("memory-swappiness") {
		n, err := strconv.ParseInt(f.text("memory-swappiness"), 10, 32)
		f.faults.Check(err == nil, "memory-swappiness", "%q is no whole number", f.text("memory-swappiness"))
		t.Resources.MemorySwappiness = &n
		if n == -1 { // as docker
			t.Resources.MemorySwappiness = nil
		}
	}
}

func (f *Flags) applyPrivileges(c *typesv1.ContainerSpec) {
	if !f.any("privileged", "pid", "ipc", "userns", "security-opt") {
		return
	}
	if c.Privileges == nil {
		c.Privileges = &typesv1.Privileges{}
	}
	if f.set.Changed("privileged") {
		c.Privileges.Privileged, _ = f.set.GetBool("privileged")
	}
	for flag, field := range map[string]*bool{"pid": &c.Privileges.HostPid, "ipc": &c.Privileges.HostIpc} {
		if f.set.Changed(flag) {
			f.faults.Check(f.text(flag) == "host" || f.text(flag) == "", flag, "%q is not host, nor empty: the container's own", f.text(flag))
			*field = f.text(flag) == "host"
		}
	}
	if f.set.Changed("userns") {
		mode, known := userNamespaces()[f.text("userns")]
		f.faults.Check(known || f.text("userns") == "", "userns", "%q is not private, host, nor empty: the default", f.text("userns"))
		c.Privileges.UserNamespace = mode
	}
	for _, text := range f.list("security-opt") {
		f.securityOpt(c.Privileges, text)
	}
}

// userNamespaces are the words for whose user ids a container has.
func userNamespaces() map[string]typesv1.UserNamespace {
	return map[string]typesv1.UserNamespace{
		"host": typesv1.UserNamespace_USER_NAMESPACE_HOST, "private": typesv1.UserNamespace_USER_NAMESPACE_PRIVATE,
	}
}

func (f *Flags) securityOpt(p *typesv1.Privileges, text string) {
	kind, value, _ := strings.Cut(text, "=")
	switch kind {
	case "no-new-privileges":
		on, err := strconv.ParseBool(value)
		f.faults.Check(value == "" || err == nil, "security-opt", "%q: %q is not true or false", text, value)
		p.NoNewPrivileges = value == "" || on
	case "seccomp":
		p.Seccomp = &typesv1.Seccomp{Mode: mode(value)}
		if p.Seccomp.Mode == typesv1.ProfileMode_PROFILE_MODE_CUSTOM {
			profile, err := f.read(value)
			f.faults.Merge("security-opt", err)
			p.Seccomp.Profile = string(profile)
		}
	case "apparmor":
		p.Apparmor = &typesv1.AppArmor{Mode: mode(value)}
		if p.Apparmor.Mode == typesv1.ProfileMode_PROFILE_MODE_CUSTOM {
			p.Apparmor.Profile = value
		}
	case "label":
		f.label(p, text, value)
	default:
		f.faults.Add("security-opt", "%q is not no-new-privileges, seccomp=…, apparmor=… or label=…", text)
	}
}

func mode(value string) typesv1.ProfileMode {
	switch value {
	case "", "default":
		return typesv1.ProfileMode_PROFILE_MODE_DEFAULT
	case "unconfined":
		return typesv1.ProfileMode_PROFILE_MODE_UNCONFINED
	}
	return typesv1.ProfileMode_PROFILE_MODE_CUSTOM
}

func (f *Flags) label(p *typesv1.Privileges, text, value string) {
	if p.Selinux == nil {
		p.Selinux = &typesv1.SELinux{}
	}
	part, word, _ := strings.Cut(value, ":")
	switch part {
	case "disable":
		p.Selinux = &typesv1.SELinux{Disable: true}
	case "user":
		p.Selinux.User = word
	case "role":
		p.Selinux.Role = word
	case "type":
		p.Selinux.Type = word
	case "level":
		p.Selinux.Level = word
	default:
		f.faults.Add("security-opt", "%q is not label=disable, or label=user:, role:, type: or level: and a value", text)
	}
}

// applyCapabilities adds and drops. Of a capability that was dropped before and is added now the later counts.
func (f *Flags) applyCapabilities(c *typesv1.ContainerSpec) {
	for _, way := range []struct {
		flag     string
		to, from *[]string
	}{{"cap-add", &c.CapabilityAdd, &c.CapabilityDrop}, {"cap-drop", &c.CapabilityDrop, &c.CapabilityAdd}} {
		for _, text := range f.list(way.flag) {
			if strings.EqualFold(text, "RESET") {
				*way.to = nil
				continue
			}
			same := func(have string) bool { return capability(have) == capability(text) }
			*way.from = slices.DeleteFunc(*way.from, same)
			if !slices.ContainsFunc(*way.to, same) {
				*way.to = append(*way.to, text)
			}
		}
	}
}

// capability is a name in one form; whether there is one of that name is for the store to say.
func capability(name string) string { return strings.TrimPrefix(strings.ToUpper(name), "CAP_") }

// read is the content of a person's file.
func (f *Flags) read(path string) ([]byte, error) {
	data, err := f.readFile(path)
	if err != nil {
		return nil, errs.New(errs.Invalid, "read %s: %w", path, err)
	}
	return data, nil
}
