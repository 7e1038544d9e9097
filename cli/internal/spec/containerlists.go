package spec

import (
	"slices"
	"strconv"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// entries is one list flag of a container: how it is shown, added to and taken from.
type entries struct {
	flag, usage string
	add         func(c *typesv1.ContainerSpec, text string) error
	// remove says whether there was one.
	remove func(c *typesv1.ContainerSpec, text string) bool
}

// containerLists are the flags that may be given many times; an update has each with -add and -rm.
func containerLists() []entries {
	return []entries{
		texts("group", "add a group of the user: name or id", func(c *typesv1.ContainerSpec) *[]string { return &c.Groups }),
		{"host", "add a line to /etc/hosts: NAME:ADDRESS; the address host-gateway is the node's", addHost, removeHost},
		texts("dns", "ask this resolver: ADDRESS", func(c *typesv1.ContainerSpec) *[]string { return &dnsOf(c).Nameservers }),
		texts("dns-search", "try this domain behind names", func(c *typesv1.ContainerSpec) *[]string { return &dnsOf(c).Search }),
		texts("dns-option", "set an option of resolv.conf: ndots:2", func(c *typesv1.ContainerSpec) *[]string { return &dnsOf(c).Options }),
		{"sysctl", "set a kernel setting of the container: net.core.somaxconn=1024", addSysctl, removeSysctl},
		{"ulimit", "set a limit of its processes: nofile=1024:4096", addUlimit, removeUlimit},
		{"mount", "mount something: type=bind|volume|tmpfs,source=…,target=…[,readonly]", addMount, removeMount},
		{"device", "give it a device: PATH[:PATH[:rwm]], or VENDOR/CLASS=NAME by the Container Device Interface", addDevice, removeDevice},
		texts("device-cgroup-rule", "add a rule for devices: 'c 1:3 mr'", func(c *typesv1.ContainerSpec) *[]string { return &c.DeviceCgroupRules }),
		texts("masked-path", "a path that can't be read", func(c *typesv1.ContainerSpec) *[]string { return &privilegesOf(c).MaskedPaths }),
		texts("read-only-path", "a path that can't be written to", func(c *typesv1.ContainerSpec) *[]string { return &privilegesOf(c).ReadOnlyPaths }),
	}
}

// texts is a list of plain texts.
func texts(flag, usage string, of func(*typesv1.ContainerSpec) *[]string) entries {
	return entries{
		flag: flag, usage: usage,
		add: func(c *typesv1.ContainerSpec, text string) error {
			if list := of(c); !slices.Contains(*list, text) {
				*list = append(*list, text)
			}
			return nil
		},
		remove: func(c *typesv1.ContainerSpec, text string) bool {
			list := of(c)
			before := len(*list)
			*list = slices.DeleteFunc(*list, func(have string) bool { return have == text })
			return len(*list) < before
		},
	}
}

func dnsOf(c *typesv1.ContainerSpec) *typesv1.DNSConfig {
	if c.DnsConfig == nil {
		c.DnsConfig = &typesv1.DNSConfig{}
	}
	return c.DnsConfig
}

func privilegesOf(c *typesv1.ContainerSpec) *typesv1.Privileges {
	if c.Privileges == nil {
		c.Privileges = &typesv1.Privileges{}
	}
	return c.Privileges
}

func (f *Flags) containerLists(update bool) {
	for _, l := range containerLists() {
		if !update {
			f.set.StringArray(l.flag, nil, l.usage)
			continue
		}
		f.set.StringArray(l.flag+"-add", nil, "add or replace: "+l.usage)
		f.set.StringArray(l.flag+"-rm", nil, "remove a "+l.flag)
	}
}

func (f *Flags) addContainerLists(c *typesv1.ContainerSpec, suffix string) {
	for _, l := range containerLists() {
		for _, text := range f.list(l.flag + suffix) {
			f.faults.Merge(l.flag+suffix, l.add(c, text))
		}
	}
}

func (f *Flags) changeContainerLists(c *typesv1.ContainerSpec) {
	for _, l := range containerLists() {
		for _, text := range f.list(l.flag + "-rm") {
			f.faults.Check(l.remove(c, text), l.flag+"-rm", "there is no %q to remove", text)
		}
	}
	f.addContainerLists(c, "-add")
}

// addHost reads NAME:ADDRESS, docker's form; it is kept as /etc/hosts has it. An address of version 6 has colons too.
func addHost(c *typesv1.ContainerSpec, text string) error {
	name, address, ok := strings.Cut(text, ":")
	if !ok || name == "" || address == "" {
		return errs.New(errs.Invalid, "%q is not NAME:ADDRESS", text)
	}
	line := strings.Trim(address, "[]") + " " + name
	if !slices.Contains(c.Hosts, line) {
		c.Hosts = append(c.Hosts, line)
	}
	return nil
}

// removeHost takes NAME, or NAME:ADDRESS.
func removeHost(c *typesv1.ContainerSpec, text string) bool {
	name, address, exact := strings.Cut(text, ":")
	before := len(c.Hosts)
	c.Hosts = slices.DeleteFunc(c.Hosts, func(line string) bool {
		fields := strings.Fields(line)
		return len(fields) > 1 && slices.Contains(fields[1:], name) && (!exact || fields[0] == strings.Trim(address, "[]"))
	})
	return len(c.Hosts) < before
}

func addSysctl(c *typesv1.ContainerSpec, text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return errs.New(errs.Invalid, "%q is not NAME=value", text)
	}
	if c.Sysctls == nil {
		c.Sysctls = map[string]string{}
	}
	c.Sysctls[name] = value
	return nil
}

func removeSysctl(c *typesv1.ContainerSpec, name string) bool {
	_, ok := c.Sysctls[name]
	delete(c.Sysctls, name)
	return ok
}

// addUlimit reads NAME=SOFT[:HARD].
func addUlimit(c *typesv1.ContainerSpec, text string) error {
	name, value, _ := strings.Cut(text, "=")
	soft, hard, both := strings.Cut(value, ":")
	if !both {
		hard = soft
	}
	u := &typesv1.Ulimit{Name: name}
	var err1, err2 error
	u.Soft, err1 = strconv.ParseInt(soft, 10, 64)
	u.Hard, err2 = strconv.ParseInt(hard, 10, 64)
	if name == "" || err1 != nil || err2 != nil {
		return errs.New(errs.Invalid, "%q is not NAME=SOFT[:HARD], such as nofile=1024:4096", text)
	}
	removeUlimit(c, name)
	c.Ulimits = append(c.Ulimits, u)
	return nil
}

func removeUlimit(c *typesv1.ContainerSpec, name string) bool {
	before := len(c.Ulimits)
	c.Ulimits = slices.DeleteFunc(c.Ulimits, func(u *typesv1.Ulimit) bool { return u.GetName() == name })
	return len(c.Ulimits) < before
}

// addDevice reads PATH[:PATH][:rwm], or a name of the Container Device Interface, which has = in it.
func addDevice(c *typesv1.ContainerSpec, text string) error {
	if !strings.HasPrefix(text, "/") && strings.Contains(text, "=") {
		if !slices.Contains(c.CdiDevices, text) {
			c.CdiDevices = append(c.CdiDevices, text)
		}
		return nil
	}
	parts := strings.Split(text, ":")
	d := &typesv1.Device{HostPath: parts[0]}
	switch {
	case len(parts) == 3:
		d.ContainerPath, d.Permissions = parts[1], parts[2]
	case len(parts) == 2 && strings.HasPrefix(parts[1], "/"):
		d.ContainerPath = parts[1]
	case len(parts) == 2:
		d.Permissions = parts[1]
	case len(parts) > 3:
		return errs.New(errs.Invalid, "%q is not PATH[:PATH[:rwm]]", text)
	}
	removeDevice(c, d.GetHostPath())
	c.Devices = append(c.Devices, d)
	return nil
}

// removeDevice takes the path on the node, or the name.
func removeDevice(c *typesv1.ContainerSpec, text string) bool {
	before := len(c.Devices) + len(c.CdiDevices)
	c.CdiDevices = slices.DeleteFunc(c.CdiDevices, func(name string) bool { return name == text })
	c.Devices = slices.DeleteFunc(c.Devices, func(d *typesv1.Device) bool { return d.GetHostPath() == text })
	return len(c.Devices)+len(c.CdiDevices) < before
}
