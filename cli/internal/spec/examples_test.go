package spec_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalproject/shoal/cli/internal/spec"
)

const examples = "../../../docs/reference/service-spec-examples"

// TestExamples: each example of docs/reference/service-spec.md is a command line that sets the field that it is for. What it
// becomes is written beside it, for REST and for the store's own test.
func TestExamples(t *testing.T) {
	text, err := os.ReadFile(examples + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]json.RawMessage{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, flags, ok := strings.Cut(line, ": ")
		if line == "" || strings.HasPrefix(line, "#") || !ok {
			continue
		}
		args, err := spec.Words(flags)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s, err := flagsOf(t, (*spec.Flags).Create, append([]string{"--name", "web"}, args...)...).Spec("nginx", nil)
		if err != nil {
			t.Errorf("%s: %s: %v", name, flags, err)
			continue
		}
		message, field, _ := strings.Cut(name, ".")
		if !sets(s.ProtoReflect(), message, field) {
			t.Errorf("%s: %s does not set it: %v", name, flags, s)
		}
		body, err := protojson.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		made[name] = body
	}
	out, err := json.MarshalIndent(made, "", "  ") // also in one form, which protojson is not
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, '\n')
	if os.Getenv("REWRITE") != "" {
		if err := os.WriteFile(examples+".json", out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(examples + ".json")
	if err != nil || !bytes.Equal(kept, out) {
		t.Errorf("%s.json is not what the flags become; run: REWRITE=1 go -C cli test ./internal/spec -run Examples\n%v %s", examples, err, cmp.Diff(string(kept), string(out)))
	}
}

// sets says whether a message of this name, somewhere in m, has the field.
func sets(m protoreflect.Message, message, field string) (found bool) {
	if string(m.Descriptor().Name()) == message {
		if fd := m.Descriptor().Fields().ByName(protoreflect.Name(field)); fd != nil && m.Has(fd) {
			return true
		}
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() || fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				found = found || sets(v.List().Get(i).Message(), message, field)
			}
		default:
			found = found || sets(v.Message(), message, field)
		}
		return !found
	})
	return found
}
