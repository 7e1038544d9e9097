package command_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/internal/contexts"
)

const configFolder = "/home/ada/.config/shoal"

// world is a person's shell with a cluster at 10.0.0.1.
type world struct {
	env     run.Env
	cluster *cluster
	environ map[string]string
	typed   string       // what comes in
	images  app.Registry // that the person asks; nil: none
	stop    func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	env := testx.Env(t)
	ca := identitytest.New(t, env, "c1")
	w := &world{env: env, cluster: newCluster(), environ: map[string]string{"HOME": "/home/ada", "COLOR": "blue"}}
	w.cluster.addNode("m1", "m1", true)
	w.cluster.addNode("m2", "m2", false)
	w.stop = w.cluster.serve(t, env, ca, "10.0.0.1:2384")
	person(t, env, ca, "ada")
	store := contexts.New(env.Files, configFolder)
	for _, err := range []error{
		store.Put(contexts.Context{Name: "default", Cluster: "c1", Gateways: []string{"10.0.0.1:2384"}}),
		store.Use("default"), env.Files.Write("/var/lib/shoal/machine-id", []byte("m1\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // the gateway listens
	return w
}

// shoal carries out one command line and returns all that a person sees.
func (w *world) shoal(ctx context.Context, args ...string) (out, said string, code int) {
	var stdout, stderr bytes.Buffer
	a := &app.App{Env: w.env, Out: &stdout, Err: &stderr, Getenv: func(k string) string { return w.environ[k] }, Registry: w.images}
	if w.typed != "" {
		a.In = strings.NewReader(w.typed)
	}
	code = command.Run(ctx, a, args)
	return stdout.String(), stderr.String(), code
}

// TestScripts are the outputs of all commands in the order in which a person might type them. "err:" marks what goes to
// standard error. `go test -rewrite` writes them anew.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.script")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.stop()
				datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string { return w.step(t, d) })
			})
		})
	}
}

func (w *world) step(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "file":
		if err := w.env.Files.Write(d.CmdArgs[0].Key, []byte(d.Input+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return ""
	case "wait":
		d, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(d)
		return ""
	case "members": // two machines with a dispatcher and a store each
		w.cluster.addMember(authzv1.Role_ROLE_STORE, "m1", "10.0.0.1:2381", 3).Leader = true
		w.cluster.addMember(authzv1.Role_ROLE_STORE, "m2", "10.0.0.2:2381", 0)
		for i, m := range w.cluster.members {
			m.GetMember().Raft = &typesv1.RaftMember{Id: uint64(i + 1), Voter: i == 0}
		}
		w.cluster.addMember(authzv1.Role_ROLE_DISPATCHER, "m1", "10.0.0.1:2383", 2).Lease = &typesv1.Lease{Meta: &typesv1.Meta{Id: "dispatcher/m1"}, Number: 4}
		sick := w.cluster.addMember(authzv1.Role_ROLE_DISPATCHER, "m2", "10.0.0.2:2383", 1)
		sick.Health, sick.GetMember().Status.Waits = controlv1.MemberHealth_MEMBER_HEALTH_WAITS, []string{"store: no leader"}
		return ""
	case "fails": // the last update of a service has failed and gone back by itself
		w.cluster.goesBack(d.CmdArgs[0].Key)
		return ""
	case "busy": // the next update finds that somebody was faster
		w.cluster.refuse = errs.New(errs.Conflict, "update out of sequence")
		return ""
	case "registry": // there is one, with an image app:1 and a login for it
		w.images = &registryOf{}
		return ""
	case "typed": // comes in
		w.typed = d.Input + "\n"
		return ""
	case "lost": // the next machine to go takes the way of the answer with it
		w.cluster.lost = true
		return ""
	case "shoal":
	default:
		t.Fatalf("%s: unknown step %q", d.Pos, d.Cmd)
	}
	args, err := spec.Words(d.Input)
	if err != nil {
		t.Fatal(err)
	}
	out, said, code := w.shoal(t.Context(), args...)
	for line := range strings.Lines(said) {
		out += "err: " + line
	}
	if code != 0 {
		out += "exit code " + string(rune('0'+code)) + "\n"
	}
	// A table pads the last cell of no row, but cells that are empty at its end leave blanks, which editors eat.
	var b strings.Builder
	for line := range strings.Lines(out) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestCtrlCLeavesTheWorkRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.cluster.stuck = true
		ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
		defer cancel()
		interrupted, interrupt := context.WithCancel(t.Context())
		defer interrupt()
		context.AfterFunc(ctx, interrupt)
		_, said, code := w.shoal(interrupted, "service", "create", "--name", "web", "img")
		want := "overall progress: 0 out of 1 tasks\n1/1: preparing\nOperation continuing in background.\nUse 'shoal service ps web' to check progress.\n"
		if said != want || code != 0 {
			t.Errorf("exit code %d:\n%s", code, said)
		}
	})
}

func TestTheFirstLineOfProgressComesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		start := time.Now()
		first := time.Duration(-1)
		a := &app.App{Env: w.env, Out: &bytes.Buffer{}, Getenv: func(k string) string { return w.environ[k] }}
		a.Err = writer(func([]byte) {
			if first < 0 {
				first = time.Since(start)
			}
		})
		if code := command.Run(t.Context(), a, []string{"service", "create", "--name", "web", "img"}); code != 0 {
			t.Fatal(code)
		}
		if first < 0 || first > 300*time.Millisecond {
			t.Errorf("the first line came after %s", first)
		}
		if d := time.Since(start); d > startTime+1500*time.Millisecond {
			t.Errorf("converged after %s, although the task ran after %s and 1 s is for watching it", d, startTime)
		}
	})
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestAListingLearnsGatewaysAndLaterCommandsUseThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.cluster.gateways = []string{"10.0.0.1:2384", "10.0.0.2:2384"}
		if _, said, code := w.shoal(t.Context(), "node", "ls"); code != 0 {
			t.Fatal(said)
		}
		// The first gateway goes; its cluster is served by the second.
		w.stop()
		ca := identitytest.New(t, w.env, "c1")
		person(t, w.env, ca, "ada")
		stop := w.cluster.serve(t, w.env, ca, "10.0.0.2:2384")
		defer stop()
		synctest.Wait()
		if out, said, code := w.shoal(t.Context(), "network", "ls", "-q"); code != 0 {
			t.Errorf("exit code %d: %s%s", code, out, said)
		}
	})
}

func TestNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stop()
		_, said, code := w.shoal(t.Context(), "service", "ls")
		for _, part := range []string{"list services: no gateway answers at 10.0.0.1:2384", "connection refused", "--gateway"} {
			if !strings.Contains(said, part) {
				t.Errorf("%q is not in %q", part, said)
			}
		}
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestCompletionKnowsLiveNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.shoal(t.Context(), "network", "create", "front")
		w.shoal(t.Context(), "service", "create", "-d", "--name", "web", "img")
		for line, want := range map[string]string{
			"service ps ": "web", "service scale w": "web=", "node update m": "m1", "network rm ": "front",
			"--context ": "default", "service update --network-add ": "front", "join-token ": "worker",
		} {
			out, _, _ := w.shoal(t.Context(), append([]string{"__complete"}, strings.Split(line, " ")...)...)
			if !strings.HasPrefix(out, want+"\n") {
				t.Errorf("%q completes with %q", line, out)
			}
		}
	})
}
