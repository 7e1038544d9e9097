package directory_test

import (
	"slices"
	"testing"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	ca    = authzv1.Role_ROLE_CA
	store = authzv1.Role_ROLE_STORE
	file  = "/var/lib/shoal/agent/directory.json"
)

func entry(role authzv1.Role, machine string, addrs ...string) *cav1.DirectoryEntry {
	return &cav1.DirectoryEntry{Role: role, MachineId: machine, Addresses: addrs}
}

func machines(d *directory.Directory, role authzv1.Role) []string {
	var out []string
	for _, e := range d.Entries(role) {
		out = append(out, e.GetMachineId())
	}
	return out
}

func TestADirectoryIsKeptAndNeverForgetsARole(t *testing.T) {
	env := testx.Env(t)
	d, err := directory.New(env.Files, file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(changes bool, entries ...*cav1.DirectoryEntry) {
		t.Helper()
		changed := d.Changed()
		if err := d.Set(&cav1.Directory{Entries: entries}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			if !changes {
				t.Error("told of a change that is none")
			}
		default:
			if changes {
				t.Error("not told of a change")
			}
		}
	}
	want := func(role authzv1.Role, names ...string) {
		t.Helper()
		again, err := directory.New(env.Files, file)
		if err != nil {
			t.Fatal(err)
		}
		if got := machines(d, role); !slices.Equal(got, names) || !slices.Equal(machines(again, role), names) {
			t.Errorf("%v: %v, after a restart %v, wanted %v", role, got, machines(again, role), names)
		}
	}
	set(true, entry(store, "b", "b:1"), entry(store, "a", "a:1"), entry(ca, "a", "a:2"))
	want(store, "a", "b")
	set(false, entry(ca, "a", "a:2"), entry(store, "a", "a:1"), entry(store, "b", "b:1"))
	set(true, entry(store, "c", "c:1"))
	want(store, "c")
	want(ca, "a")
	set(false)
	set(false, entry(store, "d"))
	want(store, "c")
	if d.Set(nil) != nil || len(d.All().GetEntries()) != 2 {
		t.Error("no answer is no news")
	}
}

func TestAnUnreadableDirectoryIsTold(t *testing.T) {
	env := testx.Env(t)
	if err := env.Files.Write(file, []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := directory.New(env.Files, file); !errs.Is(err, errs.Invalid) {
		t.Fatal(err)
	}
}

func TestADirectoryOfANewerVersionIsRead(t *testing.T) {
	env := testx.Env(t)
	if err := env.Files.Write(file, []byte(`{"entries":[{"role":"ROLE_CA","machineId":"a","addresses":["a:1"],"new":1}],"newer":true}`), 0o644); err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(env.Files, file)
	if err != nil || len(d.Entries(ca)) != 1 {
		t.Fatal(d, err)
	}
}

func TestMembersThatListenNowhereAreLeftOut(t *testing.T) {
	dir := directory.FromMembers(slices.Values([]*typesv1.Member{
		{Role: store, MachineId: "a", Addresses: []string{"a:1"}, Weight: 7},
		{Role: authzv1.Role_ROLE_AGENT, MachineId: "a"},
	}))
	if len(dir.GetEntries()) != 1 || dir.GetEntries()[0].GetWeight() != 7 {
		t.Error(dir)
	}
}

// A process that is drained gets nobody new; but the last of a role is better than nobody.
func TestDrainedMembersAreLeftOut(t *testing.T) {
	member := func(machine string, drain bool) *typesv1.Member {
		return &typesv1.Member{Role: store, MachineId: machine, Addresses: []string{machine + ":1"}, Spec: &typesv1.MemberSpec{Drain: drain}}
	}
	dir := directory.FromMembers(slices.Values([]*typesv1.Member{member("a", true), member("b", false)}))
	if len(dir.GetEntries()) != 1 || dir.GetEntries()[0].GetMachineId() != "b" {
		t.Error(dir)
	}
	if dir = directory.FromMembers(slices.Values([]*typesv1.Member{member("a", true), member("b", true)})); len(dir.GetEntries()) != 2 {
		t.Error(dir)
	}
}
