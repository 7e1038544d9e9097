package admit

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// maxProfile is the size of a filter of system calls.
const maxProfile = 48 << 10

// userIDs is how many ids a user namespace has: those that the agent maps.
const userIDs = 65536

// namespacesOff says why a namespace of a node is out of reach.
const namespacesOff = "this cluster does not allow it: containers.allow_host_namespaces is off; `shoal cluster update --allow-host-namespaces` turns it on"

// capabilities are those of capabilities(7).
const capabilities = "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE " +
	"DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN " +
	"NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT " +
	"SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM"

// isolation checks how far a container wants to be let out, against what the cluster allows.
func (f *Faults) isolation(policy *typesv1.ContainerPolicy, c *typesv1.ContainerSpec) {
	c.CapabilityAdd = f.capabilities("capability_add", c.GetCapabilityAdd())
	c.CapabilityDrop = f.capabilities("capability_drop", c.GetCapabilityDrop())
	for _, name := range c.GetCapabilityAdd() {
		f.Check(name == "ALL" || !slices.Contains(c.GetCapabilityDrop(), name), "capability_drop", "%s is added and dropped", name)
	}
	p := c.GetPrivileges()
	if p.GetPrivileged() && !policy.GetAllowPrivileged() {
		f.AddKind(errs.Precondition, "privileges.privileged", "this cluster does not allow it: containers.allow_privileged is off; `shoal cluster update --allow-privileged` turns it on")
	}
	for _, share := range []struct {
		field string
		asked bool
	}{{"privileges.host_pid", p.GetHostPid()}, {"privileges.host_ipc", p.GetHostIpc()}, {"privileges.host_network", p.GetHostNetwork()}} {
		if share.asked && !policy.GetAllowHostNamespaces() {
			f.AddKind(errs.Precondition, share.field, namespacesOff)
		}
	}
	f.userNamespace(c)
	f.profiles(p)
	for name, list := range map[string][]string{"masked_paths": p.GetMaskedPaths(), "read_only_paths": p.GetReadOnlyPaths()} {
		for i, text := range list {
			f.Check(path.IsAbs(text), fmt.Sprintf("privileges.%s[%d]", name, i), "%q must be an absolute path", text)
		}
	}
	f.Check(c.GetShmBytes() == 0 || !p.GetHostIpc(), "shm_bytes", "has no meaning where the node's shared memory is shared")
}

// userNamespace checks that a container whose root is nobody on the node asks for nothing that only the node's root has.
func (f *Faults) userNamespace(c *typesv1.ContainerSpec) {
	p := c.GetPrivileges()
	_, known := typesv1.UserNamespace_name[int32(p.GetUserNamespace())]
	f.Check(known, "privileges.user_namespace", "%d is not known", p.GetUserNamespace())
	if p.GetUserNamespace() != typesv1.UserNamespace_USER_NAMESPACE_PRIVATE {
		return
	}
	for field, asked := range map[string]bool{
		"privileged": p.GetPrivileged(), "host_pid": p.GetHostPid(), "host_ipc": p.GetHostIpc(), "host_network": p.GetHostNetwork(),
	} {
		f.Check(!asked, "privileges."+field, "needs the node's user ids: leave it out, or set privileges.user_namespace to host")
	}
	for i, m := range c.GetMounts() {
		switch m.GetBind().GetPropagation() {
		case typesv1.MountPropagation_MOUNT_PROPAGATION_SHARED, typesv1.MountPropagation_MOUNT_PROPAGATION_RSHARED:
			f.Add(fmt.Sprintf("mounts[%d].bind.propagation", i), "mounts made in a user namespace are never seen outside: use rslave, or set privileges.user_namespace to host")
		default:
		}
	}
	for kind, files := range map[string][]*typesv1.FileReference{"secrets": c.GetSecrets(), "configs": c.GetConfigs()} {
		for i, r := range files {
			f.Check(r.GetUid() < userIDs && r.GetGid() < userIDs, fmt.Sprintf("%s[%d]", kind, i), "%d:%d: a user namespace has ids below %d", r.GetUid(), r.GetGid(), userIDs)
		}
	}
}

// defaultUsers gives a new service the cluster's default, as far as its containers can have it.
func defaultUsers(policy *typesv1.ContainerPolicy, c *typesv1.ContainerSpec) {
	p := c.GetPrivileges()
	asked := p.GetUserNamespace() != typesv1.UserNamespace_USER_NAMESPACE_UNSPECIFIED
	if asked || policy.GetUserNamespace() != typesv1.UserNamespace_USER_NAMESPACE_PRIVATE {
		return
	}
	trial := proto.CloneOf(c)
	if trial.Privileges == nil {
		trial.Privileges = &typesv1.Privileges{}
	}
	trial.Privileges.UserNamespace = policy.GetUserNamespace()
	f := &Faults{}
	if f.userNamespace(trial); f.Err("try") == nil {
		c.Privileges = trial.Privileges
	}
}

// hostNetwork checks what has no meaning for a task that shares its node's network.
func (f *Faults) hostNetwork(spec *typesv1.ServiceSpec) {
	t := spec.GetTask()
	if !t.GetContainer().GetPrivileges().GetHostNetwork() {
		return
	}
	f.Check(len(t.GetNetworks()) == 0, "networks", "a task on its node's own network can be on no other")
	f.Check(len(spec.GetEndpoint().GetPorts()) == 0, "ports", "a task on its node's own network publishes nothing: what it listens on is the node's port")
	for name := range t.GetContainer().GetSysctls() {
		f.Check(!strings.HasPrefix(name, "net."), "sysctls", "%q would change the whole node, whose network the task shares", name)
	}
}

// capabilities are stored in one form, CAP_NAME, whatever way they were written.
func (f *Faults) capabilities(field string, list []string) []string {
	var out []string
	known := strings.Fields(capabilities)
	for i, text := range list {
		name := strings.TrimPrefix(strings.ToUpper(text), "CAP_")
		switch {
		case name == "ALL":
		case slices.Contains(known, name):
			name = "CAP_" + name
		default:
			f.Add(fmt.Sprintf("%s[%d]", field, i), "%q is no capability%s", text, suggest(name, known))
			continue
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

func (f *Faults) profiles(p *typesv1.Privileges) {
	seccomp, apparmor := p.GetSeccomp(), p.GetApparmor()
	for field, mode := range map[string]typesv1.ProfileMode{"seccomp": seccomp.GetMode(), "apparmor": apparmor.GetMode()} {
		_, known := typesv1.ProfileMode_name[int32(mode)]
		f.Check(known, "privileges."+field+".mode", "%d is not known", mode)
	}
	const custom = typesv1.ProfileMode_PROFILE_MODE_CUSTOM
	f.Check(seccomp.GetMode() == custom || seccomp.GetProfile() == "", "privileges.seccomp.profile", "is only for a custom profile")
	f.Check(apparmor.GetMode() == custom || apparmor.GetProfile() == "", "privileges.apparmor.profile", "is only for a custom profile")
	f.Check(apparmor.GetMode() != custom || apparmor.GetProfile() != "", "privileges.apparmor.profile", "is missing")
	if seccomp.GetMode() == custom {
		f.filter(seccomp.GetProfile())
	}
	l := p.GetSelinux()
	labelled := l.GetUser() != "" || l.GetRole() != "" || l.GetType() != "" || l.GetLevel() != ""
	f.Check(!l.GetDisable() || !labelled, "privileges.selinux", "is disabled and has a label")
	for name, part := range map[string]string{"user": l.GetUser(), "role": l.GetRole(), "type": l.GetType()} {
		f.Check(!strings.ContainsAny(part, ": \n"), "privileges.selinux."+name, "%q is no part of a label", part)
	}
}

// filter sees that a profile is one, so that a slip is told to who made it and not to a node. What its rules do is theirs.
func (f *Faults) filter(profile string) {
	const field = "privileges.seccomp.profile"
	if len(profile) > maxProfile {
		f.Add(field, "has %d bytes, at most %d are allowed", len(profile), maxProfile)
		return
	}
	var form struct {
		DefaultAction string `json:"defaultAction"`
		Syscalls      []struct {
			Action string `json:"action"`
		} `json:"syscalls"`
	}
	if err := json.Unmarshal([]byte(profile), &form); err != nil {
		f.Add(field, "is not in Docker's JSON form: %s", err)
		return
	}
	f.Check(strings.HasPrefix(form.DefaultAction, "SCMP_ACT_"), field, "defaultAction %q is none, such as SCMP_ACT_ERRNO", form.DefaultAction)
	for i, s := range form.Syscalls {
		f.Check(strings.HasPrefix(s.Action, "SCMP_ACT_"), field, "syscalls[%d].action %q is none, such as SCMP_ACT_ALLOW", i, s.Action)
	}
}
