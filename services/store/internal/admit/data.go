package admit

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/placeholder"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Bounds of secrets and configs, and of what a task takes of them.
const (
	// MaxSecret is the size of a secret's data, in bytes.
	MaxSecret = 500 << 10
	// MaxConfig is the size of a config's data, in bytes.
	MaxConfig = 1000 << 10
	// MaxDataVersions is how many versions of one are kept.
	MaxDataVersions = 20
	maxDataObjects  = 1000 // of a kind
	maxDataName     = 64
	maxFiles        = 64
	maxFileBytes    = 8 << 20
	defaultFileMode = 0o444
)

// Data checks a new secret or config. Most is the size of its data in bytes; template says that it has placeholders.
func Data(s *state.Snapshot, kind typesv1.Kind, a *typesv1.Annotations, data []byte, template bool, most int) *Faults {
	f := &Faults{}
	noun, name := state.KindName(kind), a.GetName()
	switch {
	case name == "":
		f.Add("name", "is missing")
	case kind == typesv1.Kind_KIND_REGISTRY:
		f.registryName(name)
	case len(name) > maxDataName || !regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?$`).MatchString(name):
		f.Add("name", "%q must be 1 to %d letters and digits, with - _ and . between them", name, maxDataName)
	}
	if _, ok := s.ClaimHolder(state.NameClaim(kind, name)); ok {
		f.AddKind(errs.Exists, "name", "%s %q exists; `shoal %s update` gives it new data", noun, name, noun)
	}
	if s.Count(kind) >= maxDataObjects {
		f.AddKind(errs.Exhausted, "name", "there are %d objects of the kind %s, which is the most", maxDataObjects, noun)
	}
	f.labels(a.GetLabels())
	f.data(data, template, most)
	return f
}

// NewData checks an update. Nil data stays as it is.
func NewData(old, a *typesv1.Annotations, data []byte, template bool, most int) *Faults {
	f := &Faults{}
	f.Check(a.GetName() == "" || a.GetName() == old.GetName(), "name", "cannot be changed from %q to %q", old.GetName(), a.GetName())
	f.labels(a.GetLabels())
	if data != nil {
		f.data(data, template, most)
	}
	f.Check(data != nil || a != nil, "data", "is missing, and so are labels: nothing would change")
	return f
}

func (f *Faults) data(data []byte, template bool, most int) {
	f.Check(len(data) > 0, "data", "is empty")
	f.Check(len(data) <= most, "data", "has %d bytes, at most %d are allowed", len(data), most)
	if template && len(data) <= most {
		if err := placeholder.CheckFile(string(data)); err != nil {
			f.Add("data", "%v", err)
		}
	}
}

// files checks which secrets and configs a container gets, and where; names become ids, and no version becomes the one in
// force.
func (f *Faults) files(s *state.Snapshot, c *typesv1.ContainerSpec) {
	n := len(c.GetSecrets()) + len(c.GetConfigs())
	f.Check(n <= maxFiles, "secrets", "and configs are %d, at most %d are allowed", n, maxFiles)
	seen := map[string]string{}
	var size uint64
	for i, r := range c.GetSecrets() {
		size += f.file(s, typesv1.Kind_KIND_SECRET, fmt.Sprintf("secrets[%d]", i), r, "/run/secrets", seen)
	}
	for i, r := range c.GetConfigs() {
		size += f.file(s, typesv1.Kind_KIND_CONFIG, fmt.Sprintf("configs[%d]", i), r, "/", seen)
	}
	f.Check(size <= maxFileBytes, "secrets", "and configs have %d bytes together, at most %d are allowed", size, maxFileBytes)
}

func (f *Faults) file(s *state.Snapshot, kind typesv1.Kind, field string, r *typesv1.FileReference, base string, seen map[string]string) (size uint64) {
	noun := state.KindName(kind)
	if r.GetId() == "" {
		f.Add(field, "names no %s", noun)
		return 0
	}
	o := dataOf(s, kind, r.GetId())
	if o == nil {
		f.AddKind(errs.Precondition, field, "no %s %q; `shoal %s create` makes it", noun, r.GetId(), noun)
		return 0
	}
	name, versions := o.GetAnnotations().GetName(), o.GetVersions()
	r.Id, r.Name, r.Template = o.GetMeta().GetId(), name, o.GetTemplate()
	if r.GetVersion() == 0 && len(versions) > 0 {
		r.Version, r.Pinned = versions[0].GetNumber(), false
	}
	found := false
	for _, v := range versions {
		if v.GetNumber() == r.GetVersion() {
			found, size = true, v.GetBytes()
		}
	}
	if !found {
		f.AddKind(errs.Precondition, field+".version", "%s %q has no version %d any more; there are %s", noun, name, r.GetVersion(), numbers(versions))
	}
	if r.GetTarget() == "" {
		r.Target = name
	}
	target := r.GetTarget()
	if !path.IsAbs(target) {
		target = path.Join(base, target)
	}
	target = path.Clean(target)
	f.Check(!strings.ContainsRune(r.GetTarget(), 0) && len(target) < 4096 && target != "/" && !strings.HasSuffix(r.GetTarget(), "/") && !escapes(r.GetTarget()),
		field+".target", "%q is no path of a file", r.GetTarget())
	if before, twice := seen[target]; twice {
		f.Add(field+".target", "%s is the place of %s already", target, before)
	}
	seen[target] = field
	if r.Mode == nil {
		mode := uint32(defaultFileMode)
		r.Mode = &mode
	}
	f.Check(r.GetMode() <= 0o777, field+".mode", "%04o is not from 0000 to 0777", r.GetMode())
	return size
}

func escapes(target string) bool {
	for part := range strings.SplitSeq(target, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

func numbers(versions []*typesv1.DataVersion) string {
	out := make([]string, 0, len(versions))
	for _, v := range versions {
		out = append(out, fmt.Sprint(v.GetNumber()))
	}
	return strings.Join(out, ", ")
}

// datum is what secrets and configs have in common.
type datum interface {
	GetMeta() *typesv1.Meta
	GetAnnotations() *typesv1.Annotations
	GetVersions() []*typesv1.DataVersion
	GetTemplate() bool
}

// dataOf finds a secret or config by id or name; nil: there is none.
func dataOf(s *state.Snapshot, kind typesv1.Kind, ref string) datum {
	if key, held := s.ClaimHolder(state.NameClaim(kind, ref)); held {
		ref = key.ID
	}
	if o := s.Secret(ref); kind == typesv1.Kind_KIND_SECRET && o != nil {
		return o
	}
	if o := s.Config(ref); kind == typesv1.Kind_KIND_CONFIG && o != nil {
		return o
	}
	return nil
}
