package spec

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

func addMount(c *typesv1.ContainerSpec, text string) error {
	m, err := ParseMount(text)
	if err != nil {
		return err
	}
	removeMount(c, m.GetTarget())
	c.Mounts = append(c.Mounts, m)
	return nil
}

// removeMount takes the path in the container.
func removeMount(c *typesv1.ContainerSpec, target string) bool {
	before := len(c.Mounts)
	c.Mounts = slices.DeleteFunc(c.Mounts, func(m *typesv1.Mount) bool { return path.Clean(m.GetTarget()) == path.Clean(target) })
	return len(c.Mounts) < before
}

// ParseMount reads docker's `type=…,source=…,target=…,…`. What goes together is for the store to say.
func ParseMount(text string) (*typesv1.Mount, error) {
	m := &typesv1.Mount{Type: typesv1.MountType_MOUNT_TYPE_VOLUME}
	for part := range strings.SplitSeq(text, ",") {
		key, value, valued := strings.Cut(strings.TrimSpace(part), "=")
		key = strings.ToLower(key)
		known, err := common(m, key, value)
		if !known {
			known, err = options(m, key, value, valued)
		}
		switch {
		case err != nil:
			return nil, errs.New(errs.Invalid, "%q: %s: %w", text, key, err)
		case !known:
			return nil, errs.New(errs.Invalid, "%q: %q is no option of a mount", text, key)
		}
	}
	if m.GetTarget() == "" {
		return nil, errs.New(errs.Invalid, "%q: target is missing", text)
	}
	return m, nil
}

// common sets what every mount has.
func common(m *typesv1.Mount, key, value string) (known bool, err error) {
	switch key {
	case "type":
		v, ok := typesv1.MountType_value["MOUNT_TYPE_"+strings.ToUpper(value)]
		if !ok || v == 0 {
			return true, errs.New(errs.Invalid, "%q is not bind, volume or tmpfs", value)
		}
		m.Type = typesv1.MountType(v)
	case "source", "src":
		m.Source = value
	case "target", "dst", "destination":
		m.Target = value
	default:
		return false, nil
	}
	return true, nil
}

// options sets what some mounts have. A switch without a value is on.
func options(m *typesv1.Mount, key, value string, valued bool) (known bool, err error) {
	on := true
	flag := func(set func(bool)) (bool, error) {
		if valued {
			on, err = strconv.ParseBool(value)
		}
		if err != nil {
			return true, errs.New(errs.Invalid, "%q is not true or false", value)
		}
		set(on)
		return true, nil
	}
	switch key {
	case "readonly", "ro":
		return flag(func(on bool) { m.ReadOnly = on })
	case "bind-propagation":
		v, ok := typesv1.MountPropagation_value["MOUNT_PROPAGATION_"+strings.ToUpper(value)]
		if !ok {
			return true, errs.New(errs.Invalid, "%q is not rprivate, private, rshared, shared, rslave or slave", value)
		}
		bindOf(m).Propagation = typesv1.MountPropagation(v)
		return true, nil
	case "bind-nonrecursive":
		return flag(func(on bool) { bindOf(m).NonRecursive = on })
	case "bind-create-src":
		return flag(func(on bool) { bindOf(m).CreateMountpoint = on })
	case "bind-recursive":
		return true, recursive(m, value)
	case "volume-nocopy":
		return flag(func(on bool) { volumeOf(m).NoCopy = on })
	case "volume-subpath":
		volumeOf(m).Subpath = value
		return true, nil
	case "scope":
		v, ok := typesv1.VolumeScope_value["VOLUME_SCOPE_"+strings.ToUpper(value)]
		if !ok || v == 0 {
			return true, errs.New(errs.Invalid, "%q is not node or slot", value)
		}
		volumeOf(m).Scope = typesv1.VolumeScope(v)
		return true, nil
	case "volume-label":
		v := volumeOf(m)
		v.Labels, err = Labels([]string{value}, v.Labels)
		return true, err
	case "tmpfs-size":
		tmpfsOf(m).SizeBytes, err = units.RAMInBytes(value)
		return true, err
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(value, 8, 32)
		tmpfsOf(m).Mode = uint32(mode)
		return true, err
	case "tmpfs-option":
		t := tmpfsOf(m)
		t.Options = append(t.Options, value)
		return true, nil
	}
	return false, nil
}

// recursive is docker's word for what a bind shows of what is mounted below its source.
func recursive(m *typesv1.Mount, value string) error {
	b := bindOf(m)
	switch value {
	case "enabled":
	case "disabled":
		b.NonRecursive = true
	case "writable":
		b.ReadOnlyNonRecursive = true
	case "readonly":
		b.ReadOnlyForceRecursive = true
	default:
		return errs.New(errs.Invalid, "%q is not enabled, disabled, writable or readonly", value)
	}
	return nil
}

func bindOf(m *typesv1.Mount) *typesv1.BindOptions {
	if m.Bind == nil {
		m.Bind = &typesv1.BindOptions{}
	}
	return m.Bind
}

func volumeOf(m *typesv1.Mount) *typesv1.VolumeOptions {
	if m.Volume == nil {
		m.Volume = &typesv1.VolumeOptions{}
	}
	return m.Volume
}

func tmpfsOf(m *typesv1.Mount) *typesv1.TmpfsOptions {
	if m.Tmpfs == nil {
		m.Tmpfs = &typesv1.TmpfsOptions{}
	}
	return m.Tmpfs
}
