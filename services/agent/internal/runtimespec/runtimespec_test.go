package runtimespec_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/prototext"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/runtimespec"
)

// TestSpecs holds what is written for machines that the test does not run on: cgroup v2, AppArmor, SELinux. Input is a
// container's spec, output is what it changes of the default container on the same machine.
func TestSpecs(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			m := runtimespec.Machine{Files: 5000, Init: "/usr/bin/shoal-agent"}
			for _, arg := range d.CmdArgs {
				switch arg.Key {
				case "cgroup2":
					m.Unified, m.Swap = true, true
				case "apparmor":
					m.AppArmor = "shoal-default"
				case "selinux":
					m.SELinux = true
				case "seccomp":
					m.Seccomp = true
				case "linux512":
					m.Recursive = true
				}
			}
			base, err := lines(t, m, &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{}})
			if err != nil {
				d.Fatalf(t, "the default container: %v", err)
			}
			if d.Cmd == "default" {
				return strings.Join(base, "\n") + "\n"
			}
			spec := &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{}}
			if err := prototext.Unmarshal([]byte(d.Input), spec); err != nil {
				d.Fatalf(t, "%v", err)
			}
			made, err := lines(t, m, spec)
			if err != nil {
				return err.Error() + "\n"
			}
			return difference(base, made)
		})
	})
}

func lines(t *testing.T, m runtimespec.Machine, spec *typesv1.TaskSpec) ([]string, error) {
	t.Helper()
	in := runtimespec.Input{
		Image: "image", Config: ocispec.ImageConfig{Cmd: []string{"/run-me"}}, User: runtimespec.User{UID: 5, GID: 6},
		Container: container.Spec{ID: "t1.0", Hostname: "t1", Container: spec.GetContainer(), Resources: spec.GetResources(), Sandbox: container.Sandbox{NetNS: "/netns"}},
	}
	for range spec.GetContainer().GetMounts() {
		in.Sources = append(in.Sources, "/on/the/node")
	}
	made, err := runtimespec.Build(namespaces.WithNamespace(t.Context(), "test"), in, m)
	if err != nil {
		return nil, err
	}
	if made.Linux.Seccomp != nil { // it is long, and containerd's
		made.Linux.Seccomp.Syscalls, made.Linux.Seccomp.Architectures = nil, nil
	}
	data, err := json.Marshal(made)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, err
	}
	var out []string
	flatten("", tree, &out)
	slices.Sort(out)
	return out, nil
}

// flatten writes a tree as one line a value; lists of values are one line, mounts and such are named by what they are for.
func flatten(path string, v any, out *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			flatten(path+"."+key, value, out)
		}
	case []any:
		for _, value := range v {
			text, _ := json.Marshal(value)
			*out = append(*out, fmt.Sprintf("%s %s", strings.TrimPrefix(path, "."), text))
		}
	default:
		text, _ := json.Marshal(v)
		*out = append(*out, fmt.Sprintf("%s %s", strings.TrimPrefix(path, "."), text))
	}
}

func difference(base, made []string) string {
	var out strings.Builder
	for _, l := range base {
		if !slices.Contains(made, l) {
			fmt.Fprintf(&out, "- %s\n", l)
		}
	}
	for _, l := range made {
		if !slices.Contains(base, l) {
			fmt.Fprintf(&out, "+ %s\n", l)
		}
	}
	return out.String()
}
