package contexts_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/internal/contexts"
)

func TestTheFolderIsWhereThePersonSays(t *testing.T) {
	for _, r := range []struct {
		env  map[string]string
		want string
	}{
		{map[string]string{"SHOAL_CONFIG": "/a", "XDG_CONFIG_HOME": "/b", "HOME": "/c"}, "/a"},
		{map[string]string{"XDG_CONFIG_HOME": "/b", "HOME": "/c"}, "/b/shoal"},
		{map[string]string{"HOME": "/c"}, "/c/.config/shoal"},
		{nil, ""},
	} {
		got, err := contexts.Dir(func(k string) string { return r.env[k] })
		if got != r.want || (err == nil) == (r.want == "") {
			t.Errorf("%v: %q, %v", r.env, got, err)
		}
	}
}

func TestContextsAreKept(t *testing.T) {
	files := testx.NewFiles()
	s := contexts.New(files, "/c")
	if _, err := s.Pick(""); !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "shoal init") {
		t.Errorf("no context: %v", err)
	}
	want := contexts.Context{Name: "east", Cluster: "abc", Gateways: []string{"10.0.0.1:2384", "[fd00::1]:2384"}}
	if err := files.Write(s.Folder("east")+"/bundle.pem", []byte("roots"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(want); err != nil {
		t.Fatal(err)
	}
	if err := s.Use("east"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "east"} {
		got, err := s.Pick(name)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", name, err, diff)
		}
	}
	if ca, _ := files.Read("/c/contexts/east/ca.pem"); string(ca) != "roots" {
		t.Errorf("ca.pem is %q", ca)
	}
	if name, err := s.Free("east"); name != "east-2" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	for name, kind := range map[string]errs.Kind{"west": errs.NotFound, "../east": errs.Invalid, "..": errs.Invalid, "a/b": errs.Invalid} {
		if err := s.Use(name); !errs.Is(err, kind) {
			t.Errorf("%q: %v", name, err)
		}
	}
	list, err := s.List()
	if diff := cmp.Diff([]contexts.Context{want}, list); diff != "" || err != nil {
		t.Error(err, diff)
	}
}
