package runtimespec

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// devices gives the container devices of the machine. What is not there is told, and no container is made without it.
func devices(ctx context.Context, s *specs.Spec, c container.Spec, m Machine) error {
	for i, d := range c.Container.GetDevices() {
		err := oci.WithDevices(d.GetHostPath(), or(d.GetContainerPath(), d.GetHostPath()), or(d.GetPermissions(), "rwm"))(ctx, nil, nil, s)
		if err != nil {
			return errs.New(errs.Invalid, "devices[%d]: %s on this node: %s", i, d.GetHostPath(), err)
		}
	}
	for i, text := range c.Container.GetDeviceCgroupRules() {
		r, err := parseRule(text)
		if err != nil {
			return errs.New(errs.Invalid, "device_cgroup_rules[%d]: %s", i, err)
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, r)
	}
	if names := c.Container.GetCdiDevices(); len(names) > 0 {
		// A cache of our own: the library's keeps a watch on its folders for ever, and these are read once a container.
		cache, err := cdi.NewCache(cdi.WithSpecDirs(m.CDI...), cdi.WithAutoRefresh(false))
		if err == nil {
			_, err = cache.InjectDevices(s, names...)
		}
		if err != nil {
			return errs.New(errs.Invalid, "cdi_devices: %s on this node: %s", strings.Join(names, ", "), err)
		}
	}
	return nil
}

// parseRule reads "c 1:3 mr"; * stands for any number.
func parseRule(text string) (specs.LinuxDeviceCgroup, error) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return specs.LinuxDeviceCgroup{}, fmt.Errorf("%q is not KIND MAJOR:MINOR ACCESS", text)
	}
	major, minor, _ := strings.Cut(fields[1], ":")
	r := specs.LinuxDeviceCgroup{Allow: true, Type: fields[0], Access: fields[2]}
	for _, n := range []struct {
		text string
		to   **int64
	}{{major, &r.Major}, {minor, &r.Minor}} {
		if n.text == "*" {
			continue
		}
		number, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil {
			return r, fmt.Errorf("%q: %q is no number", text, n.text)
		}
		*n.to = &number
	}
	return r, nil
}
