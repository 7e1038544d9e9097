package runtimespec

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// limit sets what a container may use: processors, memory, processes, and each process's own limits.
func limit(s *specs.Spec, c container.Spec, m Machine) error {
	r, most := s.Linux.Resources, c.Resources.GetLimits()
	if cpus := most.GetNanoCpus(); cpus > 0 {
		period := uint64(cpuPeriod.Microseconds())
		quota := max(1000, cpus*int64(period)/1e9) // the kernel takes no less than 1 ms
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if n := most.GetPids(); n > 0 {
		r.Pids = &specs.LinuxPids{Limit: &n}
	}
	score := int(c.Container.GetOomScoreAdj()) // always: what is left out is inherited from the shim
	s.Process.OOMScoreAdj = &score
	s.Process.Rlimits = rlimits(c, m)
	return memory(r, c, m)
}

func memory(r *specs.LinuxResources, c container.Spec, m Machine) error {
	bytes := c.Resources.GetLimits().GetMemoryBytes()
	if bytes > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &bytes}
		if m.Swap { // as Docker: as much again, where the kernel counts it
			both := 2 * bytes
			r.Memory.Swap = &both
		}
	}
	if c.Resources != nil && c.Resources.SwapBytes != nil {
		if !m.Swap {
			return errs.New(errs.Invalid, "resources.swap_bytes: this node's kernel does not count swap; boot it with swapaccount=1, or leave the swap out")
		}
		if r.Memory == nil {
			return errs.New(errs.Invalid, "resources.swap_bytes: needs a memory limit")
		}
		both := c.Resources.GetSwapBytes() // the runtime counts memory and swap together
		if both >= 0 {
			both += bytes
		}
		r.Memory.Swap = &both
	}
	if c.Resources != nil && c.Resources.MemorySwappiness != nil {
		if m.Unified {
			return errs.New(errs.Invalid, "resources.memory_swappiness: this node has cgroup v2, where swappiness is the whole node's")
		}
		if r.Memory == nil {
			r.Memory = &specs.LinuxMemory{}
		}
		swappiness := uint64(c.Resources.GetMemorySwappiness())
		r.Memory.Swappiness = &swappiness
	}
	return nil
}

// rlimits are the limits that a service names, and that of open files: 1024 for programs with select(2), and room for a
// server that asks for more.
func rlimits(c container.Spec, m Machine) []specs.POSIXRlimit {
	named := map[string]specs.POSIXRlimit{
		"RLIMIT_NOFILE": {Type: "RLIMIT_NOFILE", Soft: min(softFiles, m.Files), Hard: m.Files},
	}
	for _, u := range c.Container.GetUlimits() {
		kind := "RLIMIT_" + strings.ToUpper(u.GetName())
		named[kind] = specs.POSIXRlimit{Type: kind, Soft: uint64(u.GetSoft()), Hard: uint64(u.GetHard())} // -1 is the kernel's "none"
	}
	var list []specs.POSIXRlimit
	for _, kind := range slices.Sorted(maps.Keys(named)) {
		list = append(list, named[kind])
	}
	return list
}

// sysctls are Docker's default ones, then the service's.
func sysctls(c container.Spec) map[string]string {
	all := map[string]string{}
	if !c.Container.GetPrivileges().GetHostNetwork() { // else they are the machine's
		all["net.ipv4.ip_unprivileged_port_start"] = "0"
		all["net.ipv4.ping_group_range"] = "0 2147483647"
		if c.IDs.Mapped() { // there are no more
			all["net.ipv4.ping_group_range"] = fmt.Sprintf("0 %d", container.IDCount-1)
		}
	}
	maps.Copy(all, c.Container.GetSysctls())
	return all
}

func absolute(dir string) string { return path.Join("/", dir) }
