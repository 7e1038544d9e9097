package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Writers says which role may write which field, as the options of the protos have it.
type Writers struct {
	fields map[field]*authzv1.Writer
}

type field struct {
	kind typesv1.Kind
	name string
}

// ReadWriters reads the options. A field without one is an error: nobody could say who writes it.
func ReadWriters() (Writers, error) {
	w := Writers{fields: map[field]*authzv1.Writer{}}
	kinds := (&typesv1.Object{}).ProtoReflect().Descriptor().Fields()
	for i := range kinds.Len() {
		// The fields of Object have the numbers of their kinds.
		kind := typesv1.Kind(kinds.Get(i).Number())
		fields := kinds.Get(i).Message().Fields()
		for j := range fields.Len() {
			if err := w.read(kind, fields.Get(j)); err != nil {
				return Writers{}, err
			}
		}
	}
	return w, nil
}

func (w Writers) read(kind typesv1.Kind, fd protoreflect.FieldDescriptor) error {
	if fd.Name() == "meta" {
		return nil // the state machine's own
	}
	if !proto.HasExtension(fd.Options(), authzv1.E_Writer) {
		return fmt.Errorf("field %s has no writer option", fd.FullName())
	}
	opt, _ := proto.GetExtension(fd.Options(), authzv1.E_Writer).(*authzv1.Writer)
	w.fields[field{kind, string(fd.Name())}] = opt
	return nil
}

// Allows reports whether the role may write the field, in a transaction that creates the object or not.
func (w Writers) Allows(kind typesv1.Kind, name string, role authzv1.Role, creates bool) bool {
	opt := w.fields[field{kind, name}]
	return slices.Contains(opt.GetRoles(), role) || (creates && slices.Contains(opt.GetCreators(), role))
}
