package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"net/netip"
	"path"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command"
	"github.com/shoalproject/shoal/cli/internal/doctor"
)

// bare is a machine on which nothing runs: starting its gateway makes the fake cluster answer.
type bare struct {
	t       *testing.T
	env     run.Env
	ca      *identitytest.Authority
	cluster *cluster

	found string // what shoal-agent doctor prints; empty: nothing
	token string // the workers' token that bootstrap prints

	mu   sync.Mutex // guards all below
	stop func()
}

func (b *bare) Find(name string) (string, error) { return "/bin/" + name, nil }

func (b *bare) Run(_ context.Context, name string, args ...string) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch line := path.Base(name) + " " + strings.Join(args, " "); {
	case strings.HasPrefix(line, "shoal-ca bootstrap"):
		return b.bootstrap()
	case strings.HasPrefix(line, "shoal-agent doctor ") && b.found != "":
		return b.found, nil
	case strings.HasSuffix(line, " -version"):
		return path.Base(name) + " " + run.FullVersion(), nil
	case strings.Contains(line, " doctor "):
		return "[]", nil
	case line == "systemctl start shoal-gateway":
		b.stop = b.cluster.serve(b.t, b.env, b.ca, "10.0.0.1:2384")
	}
	return "", nil
}

func (b *bare) bootstrap() (string, error) {
	key, err := identity.NewKey(b.env.Rand)
	if err != nil {
		return "", err
	}
	pem, err := identity.EncodeKey(key)
	if err != nil {
		return "", err
	}
	leaf := identitytest.Leaf{URIs: []string{b.ca.ID(authzv1.Role_ROLE_OPERATOR, "ada").URI()}}
	out, err := json.Marshal(map[string]any{
		"cluster_id": "c1", "machine_id": "m1", "operator_cert": string(b.ca.Sign(b.t, leaf, &key.PublicKey)), "operator_key": string(pem),
		"bundle": string(b.ca.Bundle()), "gateways": []string{"10.0.0.1:2384"},
		"worker_token": b.token,
	})
	return string(out), err
}

func (*bare) Privileged() bool { return true }

func (*bare) Addresses() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
}

func (*bare) Source(context.Context, string) (netip.Addr, error) {
	return netip.MustParseAddr("10.0.0.1"), nil
}
func (*bare) RemoveAll(string) error { return nil }

func (*bare) Space(string) (doctor.Space, error) {
	return doctor.Space{Bytes: 10 << 30, Files: 1 << 20}, nil
}

func (*bare) OpenFiles() (uint64, error) { return 1 << 20, nil }

func (*bare) Lookup(context.Context, string) ([]string, error) { return nil, nil }

func (*bare) Account(string) (uid, gid int, ok bool) { return 0, 0, false }

func (*bare) Owner(string) (uid, gid int, err error) { return 0, 0, nil }

func (*bare) Give(string, int, int) error { return nil }

func (*bare) Folder(string, fs.FileMode) (bool, error) { return false, nil }

func TestInitSaysHowToGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		if err := env.Files.Write("/run/containerd/containerd.sock", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b := &bare{t: t, env: env, ca: identitytest.New(t, env, "c1"), cluster: newCluster()}
		b.cluster.addNode("m1", "m1", true)
		var out, said bytes.Buffer
		a := &app.App{
			Env: env, Out: &out, Err: &said, Programs: b, Host: b,
			Getenv: func(k string) string { return map[string]string{"HOME": "/home/ada", "SUDO_USER": "Ada"}[k] },
		}
		code := command.Run(t.Context(), a, []string{"init", "--advertise-addr", "10.0.0.1", "--availability", "drain"})
		defer b.stop()
		want := `Cluster initialized: current node (m1) is now a manager.

To add a worker to this cluster, run the following command:

    shoal join --token SHOAL-1-NODE_ROLE_WORKER-0 10.0.0.1:2377

To add a manager to this cluster, run 'shoal join-token manager' and follow the instructions.
`
		if code != 0 || out.String() != want {
			t.Errorf("exit code %d:\n%s%s", code, out.String(), said.String())
		}
		// The new context is in use: the next command needs no flag.
		out.Reset()
		if code := command.Run(t.Context(), a, []string{"node", "inspect", "-f", "{{.Spec.Availability}}", "m1"}); code != 0 || out.String() != "drain\n" {
			t.Errorf("exit code %d: %s%s", code, out.String(), said.String())
		}
	})
}

// Where others start the processes, others keep what init prints: docker logs does.
func TestInitThatStartsNothingPrintsNoToken(t *testing.T) {
	out, said, code := onBare(t, "", func(b *bare) { b.token = "SHOAL-1-secret" }, "init", "--start", "none", "--advertise-addr", "10.0.0.1")
	if code != 0 || strings.Contains(out+said, "SHOAL-1-") || !strings.Contains(out, "run 'shoal join-token worker'") || !strings.Contains(said, "shoal-store -config") {
		t.Errorf("exit code %d:\n%s%s", code, out, said)
	}
	out, _, _ = onBare(t, "", func(b *bare) { b.token = "SHOAL-1-secret" }, "init", "--start", "none", "--advertise-addr", "10.0.0.1", "--format", "{{.WorkerToken}}")
	if out != "SHOAL-1-secret\n" {
		t.Errorf("--format printed %q", out)
	}
}
