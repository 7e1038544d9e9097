// Package memfstest holds what keeps the files of containers to its contract: the one in the kernel and the one of hollow
// machines. It must know of neither.
package memfstest

import (
	"context"
	"slices"
	"testing"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Vault is what is held to the contract.
type Vault interface {
	Make(ctx context.Context, id string, files []container.File) ([]container.Bind, error)
	Remove(ctx context.Context, id string) error
	Sweep(ctx context.Context, keep func(id string) bool) error
}

// Conform runs the contract. Read gives the data of what a Bind leads from, or false when it is gone.
func Conform(t *testing.T, v Vault, read func(from string) (data string, ok bool)) {
	ctx := t.Context()
	write := func(id, data string) []container.Bind {
		t.Helper()
		binds, err := v.Make(ctx, id, []container.File{
			{Path: "/run/secrets/a", Data: []byte(data), Mode: 0o400}, {Path: "/etc/b", Data: []byte(data + "b"), Mode: 0o444},
		})
		if err != nil || len(binds) != 2 || binds[0].To != "/run/secrets/a" || binds[1].To != "/etc/b" {
			t.Fatalf("made %v, %v", binds, err)
		}
		return binds
	}
	expect := func(binds []container.Bind, want ...string) {
		t.Helper()
		var have []string
		for _, b := range binds {
			if data, ok := read(b.From); ok {
				have = append(have, data)
			}
		}
		if !slices.Equal(have, want) {
			t.Errorf("the files have %q, want %q", have, want)
		}
	}
	if binds, err := v.Make(ctx, "none", nil); err != nil || len(binds) != 0 {
		t.Errorf("no files: %v, %v", binds, err)
	}
	one, two := write("one.0", "x"), write("two.0", "y")
	expect(one, "x", "xb")
	expect(write("one.0", "z"), "z", "zb") // anew
	if err := v.Remove(ctx, "two.0"); err != nil {
		t.Error(err)
	}
	expect(two)
	if err := v.Remove(ctx, "two.0"); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	three := write("three.0", "w")
	if err := v.Sweep(ctx, func(id string) bool { return id == "one.0" }); err != nil {
		t.Error(err)
	}
	expect(one, "z", "zb")
	expect(three)
	if err := v.Sweep(ctx, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	expect(one)
	expect(write("one.0", "again"), "again", "againb")
	if err := v.Sweep(ctx, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
}
