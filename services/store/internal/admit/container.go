package admit

import (
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalproject/shoal/internal/placeholder"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Bounds of a container.
const (
	// maxList is how many mounts, devices, hosts, limits and such of each a container may have.
	maxList = 100
	// Resolvers look at so many and no more (resolv.conf(5)).
	maxNameservers, maxSearch = 3, 32
	minShm                    = 64 << 10
)

// HostGateway stands for the address of the node in a container's hosts.
const HostGateway = "host-gateway"

func (f *Faults) container(c *typesv1.ContainerSpec) {
	if c.GetImage() == "" {
		f.Add("image", "is missing")
	} else if _, err := reference.ParseNormalizedNamed(c.GetImage()); err != nil {
		f.Add("image", "%q is no image reference: %s", c.GetImage(), err)
	}
	for i, e := range c.GetEnv() {
		name, value, ok := strings.Cut(e, "=")
		field := fmt.Sprintf("env[%d]", i)
		f.Check(ok && name != "" && !strings.ContainsRune(e, 0), field, "%q must be NAME=value", e)
		f.placeholders(field, value)
	}
	f.Check(c.GetDir() == "" || path.IsAbs(c.GetDir()), "dir", "%q must be an absolute path", c.GetDir())
	f.hostname(c.GetHostname())
	f.Check(validSignal(c.GetStopSignal()), "stop_signal", "%q is no signal; use a name such as SIGTERM, or a number", c.GetStopSignal())
	f.labels(c.GetLabels())
	if c.StopGracePeriod == nil {
		c.StopGracePeriod = durationpb.New(stopGrace)
	}
	f.duration("stop_grace_period", c.GetStopGracePeriod())
	f.duration("drain_time", c.GetDrainTime())
	f.Check(c.GetDrainTime().AsDuration() <= maxDrain, "drain_time", "%s is above %s", c.GetDrainTime().AsDuration(), maxDrain)
	f.few(map[string]int{
		"groups": len(c.GetGroups()), "hosts": len(c.GetHosts()), "sysctls": len(c.GetSysctls()), "ulimits": len(c.GetUlimits()),
		"mounts": len(c.GetMounts()), "devices": len(c.GetDevices()), "device_cgroup_rules": len(c.GetDeviceCgroupRules()),
		"cdi_devices": len(c.GetCdiDevices()), "capability_add": len(c.GetCapabilityAdd()), "capability_drop": len(c.GetCapabilityDrop()),
		"privileges.masked_paths": len(c.GetPrivileges().GetMaskedPaths()), "privileges.read_only_paths": len(c.GetPrivileges().GetReadOnlyPaths()),
	})
	f.names(c)
	f.kernel(c)
	f.devices(c)
	f.mounts(c.GetMounts())
	f.probes(c)
}

// few bounds lists, so that no spec makes a node work for hours.
func (f *Faults) few(lists map[string]int) {
	for name, n := range lists {
		f.Check(n <= maxList, name, "has %d entries, at most %d are allowed", n, maxList)
	}
}

func (f *Faults) placeholders(field, text string) {
	if err := placeholder.Check(text); err != nil {
		f.Add(field, "%s", err)
	}
}

func (f *Faults) hostname(name string) {
	if placeholder.In(name) {
		f.placeholders("hostname", name)
		return
	}
	f.Check(name == "" || (len(name) <= MaxName && validName(strings.ReplaceAll(name, ".", "-"))), "hostname", "%q is no hostname", name)
}

// names checks how names are looked up.
func (f *Faults) names(c *typesv1.ContainerSpec) {
	for i, line := range c.GetHosts() {
		fields := strings.Fields(line)
		ok := len(fields) >= 2 && !strings.ContainsAny(line, "\n#")
		if ok {
			_, err := netip.ParseAddr(fields[0])
			ok = err == nil || fields[0] == HostGateway
		}
		f.Check(ok, fmt.Sprintf("hosts[%d]", i), "%q must be ADDRESS NAME, where the address may be %s", line, HostGateway)
	}
	d := c.GetDnsConfig()
	f.Check(len(d.GetNameservers()) <= maxNameservers, "dns_config.nameservers", "has %d entries; resolvers look at %d", len(d.GetNameservers()), maxNameservers)
	for i, a := range d.GetNameservers() {
		_, err := netip.ParseAddr(a)
		f.Check(err == nil, fmt.Sprintf("dns_config.nameservers[%d]", i), "%q is no address", a)
	}
	f.Check(len(d.GetSearch()) <= maxSearch, "dns_config.search", "has %d entries; resolvers look at %d", len(d.GetSearch()), maxSearch)
	for i, s := range d.GetSearch() {
		f.Check(s == "." || len(s) <= 253 && validName(strings.ReplaceAll(strings.Trim(s, "."), ".", "-")), fmt.Sprintf("dns_config.search[%d]", i), "%q is no domain", s)
	}
	for i, o := range d.GetOptions() {
		f.Check(regexp.MustCompile(`^[a-z0-9-]+(:[0-9]+)?$`).MatchString(o), fmt.Sprintf("dns_config.options[%d]", i), "%q is no option of resolv.conf, such as ndots:2", o)
	}
}

// ulimits are those of setrlimit(2), with the names that Docker gives them.
const ulimits = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"

// kernel checks what is the kernel's to keep: settings, limits, shared memory.
func (f *Faults) kernel(c *typesv1.ContainerSpec) {
	for name, value := range c.GetSysctls() {
		f.Check(namespaced(name), "sysctls", "%q is not a container's own: it would change the whole node; there are net.*, fs.mqueue.*, kernel.shm*, kernel.msg* and kernel.sem", name)
		f.Check(value != "" && !strings.ContainsAny(value, "\n\x00"), "sysctls", "%q has the value %q", name, value)
	}
	var seen []string
	for i, u := range c.GetUlimits() {
		field := fmt.Sprintf("ulimits[%d]", i)
		f.Check(slices.Contains(strings.Fields(ulimits), u.GetName()), field+".name", "%q is not one of %s", u.GetName(), ulimits)
		f.Check(!slices.Contains(seen, u.GetName()), field+".name", "%q is set twice", u.GetName())
		seen = append(seen, u.GetName())
		f.Check(u.GetSoft() >= -1 && u.GetHard() >= -1, field, "%d:%d is below -1, which means no limit", u.GetSoft(), u.GetHard())
		f.Check(u.GetHard() == -1 || u.GetSoft() != -1 && u.GetSoft() <= u.GetHard(), field+".soft", "%d is above the hard limit, %d", u.GetSoft(), u.GetHard())
	}
	f.Check(c.GetOomScoreAdj() >= -1000 && c.GetOomScoreAdj() <= 1000, "oom_score_adj", "%d is not from -1000 to 1000", c.GetOomScoreAdj())
	f.Check(c.GetShmBytes() == 0 || c.GetShmBytes() >= minShm, "shm_bytes", "%d is below the least, %d (64 KiB)", c.GetShmBytes(), minShm)
}

func namespaced(sysctl string) bool {
	for _, prefix := range []string{"net.", "fs.mqueue.", "kernel.shm", "kernel.msg"} {
		if strings.HasPrefix(sysctl, prefix) && len(sysctl) > len(prefix) && !strings.Contains(sysctl, "/") {
			return true
		}
	}
	return sysctl == "kernel.sem"
}

func (f *Faults) devices(c *typesv1.ContainerSpec) {
	for i, d := range c.GetDevices() {
		field := fmt.Sprintf("devices[%d]", i)
		if d.ContainerPath == "" {
			d.ContainerPath = d.GetHostPath()
		}
		if d.Permissions == "" {
			d.Permissions = "rwm"
		}
		f.Check(path.IsAbs(d.GetHostPath()), field+".host_path", "%q must be an absolute path", d.GetHostPath())
		f.Check(path.IsAbs(d.GetContainerPath()) || d.GetHostPath() == "", field+".container_path", "%q must be an absolute path", d.GetContainerPath())
		f.Check(regexp.MustCompile(`^[rwm]{1,3}$`).MatchString(d.GetPermissions()), field+".permissions", "%q must be of the letters r, w and m", d.GetPermissions())
	}
	for i, r := range c.GetDeviceCgroupRules() {
		f.Check(regexp.MustCompile(`^[abc] ([0-9]{1,9}|\*):([0-9]{1,9}|\*) [rwm]{1,3}$`).MatchString(r), fmt.Sprintf("device_cgroup_rules[%d]", i),
			"%q must be KIND MAJOR:MINOR ACCESS, such as c 1:3 mr", r)
	}
	for i, name := range c.GetCdiDevices() {
		f.Check(regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*/[A-Za-z][A-Za-z0-9_.-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*$`).MatchString(name), fmt.Sprintf("cdi_devices[%d]", i),
			"%q must be VENDOR/CLASS=NAME, such as vendor.com/gpu=0", name)
	}
}

// swap checks what a task may have beside its memory.
func (f *Faults) swap(r *typesv1.ResourceRequirements) {
	if r == nil {
		return
	}
	if r.SwapBytes != nil {
		f.Check(r.GetLimits().GetMemoryBytes() > 0, "resources.swap_bytes", "needs a memory limit beside it")
		f.Check(r.GetSwapBytes() >= -1, "resources.swap_bytes", "%d is below -1, which means no limit", r.GetSwapBytes())
	}
	f.Check(r.MemorySwappiness == nil || r.GetMemorySwappiness() >= 0 && r.GetMemorySwappiness() <= 100, "resources.memory_swappiness",
		"%d is not from 0 to 100", r.GetMemorySwappiness())
}

// validSignal knows the names of signal(7), with or without SIG, and numbers from 1 to 64.
func validSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	return s == "" || regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+-]*$`).MatchString(s)
}
