package command_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/identity/identitytest"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command"
	"github.com/shoalproject/shoal/cli/internal/layout"
)

// on carries out a command line on a machine of the world's cluster.
func (w *world) on(t *testing.T, args ...string) (out, said string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	b := &bare{t: t, env: w.env}
	a := &app.App{Env: w.env, Out: &stdout, Err: &stderr, Programs: b, Host: b, Getenv: func(k string) string { return w.environ[k] }}
	code = command.Run(t.Context(), a, args)
	return stdout.String(), stderr.String(), code
}

// setUp makes the machine one of a cluster, with these roles.
func (w *world) setUp(t *testing.T, cluster string, roles ...authzv1.Role) {
	t.Helper()
	ca := identitytest.New(t, w.env, cluster)
	for _, r := range roles {
		ca.Write(t, w.env, layout.Layout{}.Identity(r), identitytest.Leaf{URIs: []string{ca.ID(r, "m1").URI()}})
		if err := w.env.Files.Write(layout.Layout{}.Config(r), []byte("advertise: [10.0.0.1]\n"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// A cluster that this machine is not in would say that the members are removed already.
func TestLeaveDoesNotAskAnotherCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.setUp(t, "c2", authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_AGENT)
		_, said, code := w.on(t, "leave", "--roles", "dispatcher")
		if code == 0 || !strings.Contains(said, `the context "default" is of cluster c1, and this machine is in cluster c2`) {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
}

func TestLeaveNamesAllThatTheClusterMayStillList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		delete(w.environ, "HOME") // no context
		w.environ["SHOAL_CONFIG"] = "/nowhere"
		w.setUp(t, "c1", authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_DISPATCHER, authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY)
		_, said, code := w.on(t, "leave", "--roles", "agent,dispatcher,store", "--force")
		if code != 0 || !strings.Contains(said, "still lists") || !strings.Contains(said, "shoal member rm store/m1 dispatcher/m1\n") {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.setUp(t, "c1", authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_CA)
		// It is no node, so no node can be removed.
		_, said, code := w.on(t, "leave", "--force")
		if code != 0 || strings.Contains(said, "node rm") || !strings.Contains(said, "shoal member rm store/m1 ca/m1\n") {
			t.Errorf("exit code %d: %s", code, said)
		}
	})
}

// A gateway that is drained takes no connection, so whoever drains it must know another.
func TestWhoDrainsAGatewayLearnsOfTheOthersBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.cluster.addMember(authzv1.Role_ROLE_GATEWAY, "m1", "10.0.0.1:2384", 0)
		w.cluster.addMember(authzv1.Role_ROLE_GATEWAY, "m2", "10.0.0.2:2384", 0)
		if _, said, code := w.shoal(t.Context(), "member", "drain", "gateway/m1"); code != 0 {
			t.Fatal(said)
		}
		known := func() []string {
			c, err := contexts.New(w.env.Files, configFolder).Pick("")
			if err != nil {
				t.Fatal(err)
			}
			return c.Gateways
		}
		if got := known(); !slices.Equal(got, []string{"10.0.0.1:2384", "10.0.0.2:2384"}) {
			t.Errorf("the context knows %v", got)
		}
		// Then it is the last to try, and not forgotten.
		if _, said, code := w.shoal(t.Context(), "node", "ls"); code != 0 {
			t.Fatal(said)
		}
		if got := known(); !slices.Equal(got, []string{"10.0.0.2:2384", "10.0.0.1:2384"}) {
			t.Errorf("the context knows %v", got)
		}
	})
}

func TestTheHelpOfFlagsIsReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		if out, _, _ := w.shoal(t.Context(), "join", "--help"); !strings.Contains(out, "--learner ") || strings.Contains(out, "--learner shoal") {
			t.Errorf("it says %s", out)
		}
	})
}
