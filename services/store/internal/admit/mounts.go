package admit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/placeholder"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// tmpfsOptions are those of mount(8) that a memory mount may have; size and mode have fields of their own.
const tmpfsOptions = "exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime norelatime strictatime sync async"

func (f *Faults) mounts(mounts []*typesv1.Mount) {
	seen := map[string]int{}
	for i, m := range mounts {
		field := fmt.Sprintf("mounts[%d]", i)
		if m.GetType() == typesv1.MountType_MOUNT_TYPE_UNSPECIFIED {
			m.Type = typesv1.MountType_MOUNT_TYPE_VOLUME
		}
		target := path.Clean(m.GetTarget())
		switch before, twice := seen[target]; {
		case !path.IsAbs(m.GetTarget()):
			f.Add(field+".target", "%q must be an absolute path", m.GetTarget())
		case target == "/":
			f.Add(field+".target", "is the root of the container")
		case slices.Contains(strings.Split(m.GetTarget(), "/"), ".."):
			f.Add(field+".target", "%q has .. in it", m.GetTarget())
		case twice:
			f.Add(field+".target", "%q is taken by mounts[%d]", target, before)
		default:
			seen[target] = i
		}
		f.mount(field, m)
	}
}

func (f *Faults) mount(field string, m *typesv1.Mount) {
	const bind, volume, tmpfs = typesv1.MountType_MOUNT_TYPE_BIND, typesv1.MountType_MOUNT_TYPE_VOLUME, typesv1.MountType_MOUNT_TYPE_TMPFS
	for _, options := range []struct {
		name string
		set  bool
		of   typesv1.MountType
	}{{"bind", m.GetBind() != nil, bind}, {"volume", m.GetVolume() != nil, volume}, {"tmpfs", m.GetTmpfs() != nil, tmpfs}} {
		f.Check(!options.set || m.GetType() == options.of, field+"."+options.name, "is not for a mount of type %s", MountTypeName(m.GetType()))
	}
	f.placeholders(field+".source", m.GetSource())
	switch m.GetType() {
	case bind:
		f.bind(field, m)
	case volume:
		f.volume(field, m)
	case tmpfs:
		f.Check(m.GetSource() == "", field+".source", "is not for a mount of type tmpfs")
		f.tmpfs(field+".tmpfs", m.GetTmpfs())
	case typesv1.MountType_MOUNT_TYPE_UNSPECIFIED:
	default:
		f.Add(field+".type", "%d is not known", m.GetType())
	}
}

func (f *Faults) bind(field string, m *typesv1.Mount) {
	f.Check(path.IsAbs(m.GetSource()), field+".source", "%q must be an absolute path on the node", m.GetSource())
	_, known := typesv1.MountPropagation_name[int32(m.GetBind().GetPropagation())]
	f.Check(known, field+".bind.propagation", "%d is not known", m.GetBind().GetPropagation())
	b := m.GetBind()
	f.Check(m.GetReadOnly() || !b.GetReadOnlyNonRecursive() && !b.GetReadOnlyForceRecursive(), field+".bind", "says how it is read-only, and it is not")
	f.Check(!b.GetReadOnlyNonRecursive() || !b.GetReadOnlyForceRecursive(), field+".bind", "cannot be read-only with and without what is mounted below")
	f.Check(!b.GetNonRecursive() || !b.GetReadOnlyForceRecursive(), field+".bind", "leaves out what is mounted below, so it cannot be read-only there")
}

func (f *Faults) volume(field string, m *typesv1.Mount) {
	name := m.GetSource()
	f.Check(name == "" || placeholder.In(name) || state.ValidVolume(name), field+".source",
		"%q is no name of a volume: letters and digits, with - _ . between them, at most %d; a path needs type=bind", name, state.MaxVolumeName)
	for key, value := range m.GetVolume().GetLabels() {
		f.Check(key != "", field+".volume.labels", "a label has no name")
		f.placeholders(field+".volume.labels", value)
	}
	f.volumeScope(field, m)
	sub := m.GetVolume().GetSubpath()
	f.Check(sub == "" || !path.IsAbs(sub) && path.Clean(sub) == sub && sub != ".." && !strings.HasPrefix(sub, "../"), field+".volume.subpath",
		"%q must be a path within the volume", sub)
}

func (f *Faults) tmpfs(field string, t *typesv1.TmpfsOptions) {
	f.Check(t.GetSizeBytes() >= 0, field+".size_bytes", "%d is below 0", t.GetSizeBytes())
	f.Check(t.GetMode() <= 0o7777, field+".mode", "%o is above 7777", t.GetMode())
	for i, o := range t.GetOptions() {
		f.Check(slices.Contains(strings.Fields(tmpfsOptions), o), fmt.Sprintf("%s.options[%d]", field, i), "%q is not one of %s", o, tmpfsOptions)
	}
}

// MountTypeName is "bind", "volume" or "tmpfs".
func MountTypeName(t typesv1.MountType) string {
	return strings.ToLower(strings.TrimPrefix(t.String(), "MOUNT_TYPE_"))
}
