package runtimespec

import (
	"encoding/json"
	"runtime"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
)

// profile is a filter of system calls in Docker's JSON form: the runtime's, with rules that hold only for some processors
// or capabilities.
type profile struct {
	DefaultAction   specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet *uint                    `json:"defaultErrnoRet"`
	Architectures   []specs.Arch             `json:"architectures"`
	ArchMap         []struct {
		Architecture     specs.Arch   `json:"architecture"`
		SubArchitectures []specs.Arch `json:"subArchitectures"`
	} `json:"archMap"`
	Syscalls []rule `json:"syscalls"`
}

type rule struct {
	specs.LinuxSyscall
	Name     string `json:"name"` // of an older form
	Includes scope  `json:"includes"`
	Excludes scope  `json:"excludes"`
}

type scope struct {
	Arches []string `json:"arches"`
	Caps   []string `json:"caps"`
}

// parseProfile keeps the rules that hold here, for a container with these capabilities.
func parseProfile(text string, caps []string) (*specs.LinuxSeccomp, error) {
	var p profile
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, errs.New(errs.Invalid, "seccomp: the profile is not in Docker's JSON form: %s", err)
	}
	out := &specs.LinuxSeccomp{DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, Architectures: p.Architectures}
	for _, a := range p.ArchMap {
		if a.Architecture == nativeArch() {
			out.Architectures = append(append(out.Architectures, a.Architecture), a.SubArchitectures...)
		}
	}
	for _, r := range p.Syscalls {
		if !r.holds(caps) {
			continue
		}
		call := r.LinuxSyscall
		if r.Name != "" {
			call.Names = append(call.Names, r.Name)
		}
		out.Syscalls = append(out.Syscalls, call)
	}
	return out, nil
}

func (r rule) holds(caps []string) bool {
	here := func(arch string) bool { return arch == runtime.GOARCH }
	had := func(name string) bool { return slices.Contains(caps, name) }
	switch {
	case len(r.Includes.Arches) > 0 && !slices.ContainsFunc(r.Includes.Arches, here), slices.ContainsFunc(r.Excludes.Arches, here):
		return false
	case slices.ContainsFunc(r.Excludes.Caps, had):
		return false
	}
	return !slices.ContainsFunc(r.Includes.Caps, func(name string) bool { return !had(name) })
}

func nativeArch() specs.Arch {
	switch runtime.GOARCH {
	case "amd64":
		return specs.ArchX86_64
	case "arm64":
		return specs.ArchAARCH64
	}
	return ""
}
