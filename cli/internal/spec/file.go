package spec

import (
	"slices"
	"strconv"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// files defines the flags about secrets and configs.
func (f *Flags) files(update bool) {
	for _, noun := range []string{"secret", "config"} {
		shape := ": NAME, or source=…,target=…,uid=…,gid=…,mode=…,version=…"
		if !update {
			f.set.StringArray(noun, nil, "give the containers a "+noun+" as a file"+shape)
			continue
		}
		f.set.StringArray(noun+"-add", nil, "give the containers a "+noun+", or change how they have it"+shape)
		f.set.StringArray(noun+"-rm", nil, "take a "+noun+" from the containers")
	}
}

// addFiles takes what the flags of create say.
func (f *Flags) addFiles(c *typesv1.ContainerSpec) {
	c.Secrets, c.Configs = f.references("secret"), f.references("config")
}

// changeFiles takes what the flags of update say.
func (f *Flags) changeFiles(c *typesv1.ContainerSpec) {
	for noun, list := range map[string]*[]*typesv1.FileReference{"secret": &c.Secrets, "config": &c.Configs} {
		name := func(r *typesv1.FileReference) string { return r.GetName() }
		for _, gone := range f.list(noun + "-rm") {
			before := len(*list)
			*list = slices.DeleteFunc(*list, func(r *typesv1.FileReference) bool { return name(r) == gone || r.GetId() == gone })
			f.faults.Check(len(*list) < before, noun+"-rm", "the service has no %s %q", noun, gone)
		}
		for _, r := range f.references(noun + "-add") {
			*list = slices.DeleteFunc(*list, func(had *typesv1.FileReference) bool {
				return (name(had) == r.GetId() || had.GetId() == r.GetId()) && (r.GetTarget() == "" || r.GetTarget() == had.GetTarget())
			})
			*list = append(*list, r)
		}
	}
}

func (f *Flags) references(flag string) []*typesv1.FileReference {
	var out []*typesv1.FileReference
	for _, text := range f.list(flag) {
		r, err := ParseFile(text)
		f.faults.Merge(flag, err)
		if err == nil {
			out = append(out, r)
		}
	}
	return out
}

// ParseFile reads NAME, or source=NAME and what else is to be known of the file.
func ParseFile(text string) (*typesv1.FileReference, error) {
	if !slices.Contains([]byte(text), '=') {
		return &typesv1.FileReference{Id: text}, nil
	}
	fields, err := parseFields(text, "source", "src", "target", "dst", "uid", "gid", "mode", "version")
	if err != nil {
		return nil, err
	}
	var c errs.Collector
	r := &typesv1.FileReference{Id: fields["source"] + fields["src"], Target: fields["target"] + fields["dst"]}
	c.Check(r.GetId() != "", "source", "is missing in %q", text)
	number := func(key string, base, bits int) uint64 {
		if fields[key] == "" {
			return 0
		}
		n, err := strconv.ParseUint(fields[key], base, bits)
		c.Check(err == nil, key, "%q is no number", fields[key])
		return n
	}
	r.Uid, r.Gid = uint32(number("uid", 10, 32)), uint32(number("gid", 10, 32))
	if fields["mode"] != "" {
		mode := uint32(number("mode", 8, 32))
		r.Mode = &mode
	}
	r.Version = number("version", 10, 64)
	r.Pinned = r.GetVersion() != 0
	return r, c.Err(text)
}
