package person_test

import (
	"errors"
	"testing"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/allinone/internal/person"
)

func environment(pairs map[string]string) func(string) string {
	return func(name string) string { return pairs[name] }
}

func home(user string) (string, error) {
	if user == "alice" {
		return "/home/alice", nil
	}
	return "", errors.New("unknown user")
}

// Behind sudo the context goes to the person who typed it, who then uses shoal without sudo.
func TestWhoIsIt(t *testing.T) {
	sudo := map[string]string{"HOME": "/root", "USER": "root", "SUDO_USER": "alice", "SUDO_UID": "1000", "SUDO_GID": "1000"}
	for _, c := range []struct {
		name, change, value string
		wantName, wantDir   string
	}{
		{"sudo", "", "", "alice", "/home/alice/.config/shoal"},
		{"a folder was named", "SHOAL_CONFIG", "/etc/mine", "alice", "/etc/mine"},
		{"root by sudo", "SUDO_USER", "root", "root", "/root/.config/shoal"},
		{"root", "SUDO_USER", "", "root", "/root/.config/shoal"},
		{"nobody knows the home", "SUDO_USER", "bob", "bob", ""},
		{"sudo tells no id", "SUDO_UID", "", "alice", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{}
			for k, v := range sudo {
				env[k] = v
			}
			env[c.change] = c.value
			p, err := person.Of(environment(env), home)
			if p.Name != c.wantName || p.Dir != c.wantDir || (err == nil) != (c.wantDir != "") {
				t.Errorf("%q in %q, %v; want %q in %q", p.Name, p.Dir, err, c.wantName, c.wantDir)
			}
		})
	}
}

// rig is a person with a context of their own, and a cluster's first operator.
func rig(t *testing.T) (person.Person, run.Env, *contexts.Store, contexts.Context) {
	t.Helper()
	env := testx.Env(t)
	p, err := person.Of(environment(map[string]string{"HOME": "/root", "USER": "alice"}), home)
	if err != nil {
		t.Fatal(err)
	}
	ca := identitytest.New(t, env, "c1")
	ca.Write(t, env, "/data/operator", identitytest.Leaf{URIs: []string{ca.ID(authzv1.Role_ROLE_OPERATOR, "alice").URI()}})
	store := contexts.New(env.Files, p.Dir)
	ca.Write(t, env, store.Folder("work"), identitytest.Leaf{URIs: []string{ca.ID(authzv1.Role_ROLE_OPERATOR, "alice").URI()}})
	must(t, store.Put(contexts.Context{Name: "work", Cluster: "w", Gateways: []string{"192.0.2.1:2384"}}))
	must(t, store.Use("work"))
	return p, env, store, contexts.Context{Name: "shoal-dev", Cluster: "c1", Gateways: []string{"127.0.0.1:2384"}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func current(t *testing.T, s *contexts.Store) string {
	t.Helper()
	name, err := s.Current()
	must(t, err)
	return name
}

func TestContextIsLentAndGivenBack(t *testing.T) {
	p, env, store, c := rig(t)
	before, err := p.Give(env, c, "/data/operator")
	must(t, err)
	if before != "work" || current(t, store) != "shoal-dev" {
		t.Errorf("before %q, now %q; want work and shoal-dev", before, current(t, store))
	}
	must(t, p.Back(env.Files, c.Name, before))
	if got := current(t, store); got != "work" {
		t.Errorf("at the end %q is in use, want work", got)
	}
	// Whoever has chosen another one meanwhile keeps it.
	_, err = p.Give(env, c, "/data/operator")
	must(t, err)
	must(t, store.Use("work"))
	must(t, p.Back(env.Files, c.Name, ""))
	if got := current(t, store); got != "work" {
		t.Errorf("%q is in use, want the one that the person has chosen", got)
	}
}

// A certificate that the person's shoal has renewed is newer than the one in the cluster's folder.
func TestRenewedIdentityStays(t *testing.T) {
	p, env, store, c := rig(t)
	_, err := p.Give(env, c, "/data/operator")
	must(t, err)
	name := store.Folder(c.Name) + "/cert.pem"
	must(t, env.Files.Write(name, []byte("renewed"), 0o644))
	_, err = p.Give(env, c, "/data/operator")
	must(t, err)
	if got, _ := env.Files.Read(name); string(got) != "renewed" {
		t.Error("the renewed certificate was replaced")
	}
	other := c
	other.Cluster = "c2"
	_, err = p.Give(env, other, "/data/operator")
	must(t, err)
	if got, _ := env.Files.Read(name); string(got) == "renewed" {
		t.Error("another cluster's certificate was kept")
	}
}
