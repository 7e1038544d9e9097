package runtimespec

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// initPath is where the small init is seen in a container.
const initPath = "/dev/shoal-init"

// mounts lays the service's mounts over those that every container has. A service's own takes the place of a default one
// at the same path.
func mounts(s *specs.Spec, in Input, m Machine) error {
	c := in.Container
	list := append(s.Mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
		Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
	list = append(list, files(c)...)
	sharedMemory(list, c)
	for i, own := range c.Container.GetMounts() {
		made, err := mountOf(own, in.Sources[i], m)
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(d specs.Mount) bool { return d.Destination == made.Destination })
		list = append(list, made)
		propagate(s, own.GetBind().GetPropagation())
	}
	if c.Container.GetInit() {
		if m.Init == "" {
			return errs.New(errs.Invalid, "init: this node's agent has no init program")
		}
		list = append(list, specs.Mount{Destination: initPath, Type: "bind", Source: m.Init, Options: []string{"bind", "rprivate", "ro"}})
		s.Process.Args = append([]string{initPath, "init", "--"}, s.Process.Args...)
	}
	// The outer before the inner, else the outer one would hide it. Equal depths keep their order.
	slices.SortStableFunc(list, func(a, b specs.Mount) int { return cmp.Compare(depth(a.Destination), depth(b.Destination)) })
	s.Mounts = list
	return nil
}

func depth(path string) int { return strings.Count(strings.TrimRight(path, "/"), "/") }

// files are those that the network wrote for the container, and those of its secrets and configs.
func files(c container.Spec) (list []specs.Mount) {
	mode := "rw"
	if c.Container.GetReadOnly() {
		mode = "ro"
	}
	for _, bind := range []struct{ to, from string }{
		{"/etc/hosts", c.Sandbox.Hosts}, {"/etc/resolv.conf", c.Sandbox.Resolv}, {"/etc/hostname", c.Sandbox.Hostname},
	} {
		if bind.from != "" {
			list = append(list, specs.Mount{
				Destination: bind.to, Type: "bind", Source: bind.from, Options: []string{"rbind", "rprivate", mode},
			})
		}
	}
	for _, bind := range c.Files {
		list = append(list, specs.Mount{
			Destination: bind.To, Type: "bind", Source: bind.From, Options: []string{"bind", "rprivate", "ro", "nosuid", "nodev", "noexec"},
		})
	}
	return list
}

// sharedMemory sets the size of /dev/shm, or shows the node's own.
func sharedMemory(list []specs.Mount, c container.Spec) {
	size, host := c.Container.GetShmBytes(), c.Container.GetPrivileges().GetHostIpc()
	for i, d := range list {
		switch {
		case host && d.Destination == "/dev/shm": // that of message queues shows the node's by itself
			list[i] = specs.Mount{Destination: d.Destination, Type: "bind", Source: d.Destination, Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
		case d.Destination == "/dev/shm" && size > 0:
			list[i].Options = []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(size, 10)}
		}
	}
}

func mountOf(own *typesv1.Mount, source string, m Machine) (specs.Mount, error) {
	made := specs.Mount{Destination: absolute(own.GetTarget()), Type: "bind", Source: source}
	if own.GetType() == typesv1.MountType_MOUNT_TYPE_TMPFS {
		made.Type, made.Source, made.Options = "tmpfs", "tmpfs", memoryOptions(own)
		return made, nil
	}
	bind := own.GetBind()
	made.Options = []string{"rbind", propagation(bind.GetPropagation())}
	if bind.GetNonRecursive() {
		made.Options[0] = "bind"
	}
	switch {
	case !own.GetReadOnly():
	case bind.GetReadOnlyForceRecursive() && !m.Recursive:
		return made, errs.New(errs.Invalid, "mount %s: this node's kernel can't make what is mounted below it read-only; that needs Linux 5.12", own.GetTarget())
	case m.Recursive && !bind.GetReadOnlyNonRecursive() && !bind.GetNonRecursive():
		made.Options = append(made.Options, "rro")
	default:
		made.Options = append(made.Options, "ro")
	}
	return made, nil
}

func memoryOptions(own *typesv1.Mount) []string {
	t := own.GetTmpfs()
	options := []string{"nosuid", "nodev", "noexec"}
	if own.GetReadOnly() {
		options = append(options, "ro")
	}
	if t.GetSizeBytes() > 0 {
		options = append(options, "size="+strconv.FormatInt(t.GetSizeBytes(), 10))
	}
	if mode := t.GetMode(); mode > 0 {
		options = append(options, fmt.Sprintf("mode=%o", mode))
	}
	for _, o := range t.GetOptions() { // what says the opposite takes its place
		opposite := "no" + o
		if rest, ok := strings.CutPrefix(o, "no"); ok {
			opposite = rest
		}
		options = slices.DeleteFunc(options, func(have string) bool { return have == o || have == opposite })
		options = append(options, o)
	}
	return options
}

func propagation(p typesv1.MountPropagation) string {
	if p == typesv1.MountPropagation_MOUNT_PROPAGATION_UNSPECIFIED {
		return "rprivate"
	}
	return strings.ToLower(strings.TrimPrefix(p.String(), "MOUNT_PROPAGATION_"))
}

// propagate opens the container's root for a mount that looks out of it: below a private one nothing is shared.
func propagate(s *specs.Spec, p typesv1.MountPropagation) {
	switch p {
	case typesv1.MountPropagation_MOUNT_PROPAGATION_SHARED, typesv1.MountPropagation_MOUNT_PROPAGATION_RSHARED:
		s.Linux.RootfsPropagation = "rshared"
	case typesv1.MountPropagation_MOUNT_PROPAGATION_SLAVE, typesv1.MountPropagation_MOUNT_PROPAGATION_RSLAVE:
		if s.Linux.RootfsPropagation == "" {
			s.Linux.RootfsPropagation = "rslave"
		}
	case typesv1.MountPropagation_MOUNT_PROPAGATION_UNSPECIFIED, typesv1.MountPropagation_MOUNT_PROPAGATION_PRIVATE,
		typesv1.MountPropagation_MOUNT_PROPAGATION_RPRIVATE:
	}
}
