// Package e2e tells the main job on real hosts: the real binaries, real containerd, real kernels' tables, in the
// laboratory. Each test has a lab of its own, so that a failure in one leaves the others alone.
//
// It drives shoal only as a user would: by the shoal command, curl-like HTTP and grpcurl. Nothing here sleeps: it polls
// for what should come true, within a bound, and says what it saw last. What was never so, and in which order things came,
// a witness tells, which reads every revision of the store.
package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// cluster is a lab with a cluster on it.
type cluster struct {
	t   *testing.T
	lab *harness.Lab
	dir string
	via string // the host that the shoal command runs on

	witness *witness // nil unless the cluster is watched
}

// otherContainerd names a folder with the containerd that hosts have in place of the machine's own: make test-containerd2.
const otherContainerd = "SHOAL_CONTAINERD"

// bring makes a lab with a cluster that goes down with the test.
func bring(t *testing.T, managers, workers int) *cluster {
	t.Helper()
	return bringWith(t, harness.Options{Managers: managers, Workers: workers})
}

func bringWith(t *testing.T, opts harness.Options) *cluster {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("hosts are made of namespaces, which takes root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	opts.Dir = filepath.Join(dir, "lab")
	opts.Program = cmp.Or(opts.Program, os.Getenv("SHOAL_LAB_PROGRAM")) // other binaries than the ones in bin: those next to this one
	opts.Containerd = cmp.Or(opts.Containerd, os.Getenv(otherContainerd))
	opts.Log = slog.New(slog.NewTextHandler(testLog{t}, nil))
	started := time.Now()
	lab, err := harness.Up(t.Context(), opts)
	if lab != nil {
		t.Cleanup(func() {
			if t.Failed() {
				showLogs(t, opts.Dir)
			}
			if err := lab.Down(); err != nil {
				t.Errorf("lab down: %v", err)
			}
			until(t, "nothing is left on the outer machine", 5*time.Second, func() string { return strings.Join(residue(lab), "\n") })
			_ = os.RemoveAll(dir) // what is left of a lab was an error above
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d managers and %d workers up in %s", opts.Managers, opts.Workers, time.Since(started).Round(time.Millisecond))
	return &cluster{t: t, lab: lab, dir: opts.Dir, via: "m1"}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

const logTail = 4000

// showLogs prints the end of every process's log.
func showLogs(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "hosts", "*", "var", "log", "*.log"))
	more, _ := filepath.Glob(filepath.Join(dir, "hosts", "*", "log", "*.log"))
	for _, f := range append(files, more...) {
		data, err := os.ReadFile(f)
		if err != nil || len(data) == 0 {
			continue
		}
		if len(data) > logTail {
			data = data[len(data)-logTail:]
		}
		t.Logf("--- %s\n%s", strings.TrimPrefix(f, dir), data)
	}
}

// try runs a command on a host and returns what it printed and its exit code.
func (c *cluster) try(host string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	stdout, stderr, code, err := c.lab.Exec(ctx, host, args...)
	if err != nil {
		c.t.Fatalf("on %s: %s: %v", host, strings.Join(args, " "), err)
	}
	return stdout, stderr, code
}

// on runs a command on a host that must succeed.
func (c *cluster) on(host string, args ...string) string {
	c.t.Helper()
	stdout, stderr, code := c.try(host, args...)
	if code != 0 {
		c.t.Fatalf("on %s: %s: exit code %d\n%s%s", host, strings.Join(args, " "), code, stdout, stderr)
	}
	return strings.TrimSpace(stdout)
}

// with is the same cluster for a subtest.
func (c *cluster) with(t *testing.T) *cluster {
	return &cluster{t: t, lab: c.lab, dir: c.dir, via: c.via, witness: c.witness}
}

// step is a part of a story, which stands on the parts before.
type step struct {
	name string
	f    func(*testing.T, *cluster)
}

// tell takes the steps up to the first that fails.
func (c *cluster) tell(steps []step) {
	c.t.Helper()
	for _, s := range steps {
		if !c.t.Run(s.name, func(t *testing.T) { s.f(t, c.with(t)) }) {
			c.t.Fatalf("the story ends at: %s", s.name)
		}
	}
}

// abreast is how many steps go side by side: most of their time they wait, but two processors are two processors.
const abreast = 8

// atOnce takes the steps side by side, in this order, the longest first.
func (c *cluster) atOnce(steps []step) {
	c.t.Helper()
	var all sync.WaitGroup
	places := make(chan struct{}, abreast)
	for _, s := range steps {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			c.t.Run(s.name, func(t *testing.T) { s.f(t, c.with(t)) })
		})
	}
	all.Wait()
}

// shoal runs the shoal command; it must succeed.
func (c *cluster) shoal(args ...string) string {
	c.t.Helper()
	return c.on(c.via, append([]string{"shoal"}, args...)...)
}

// refused runs the shoal command, which must fail with exit code 1 and say each of the texts.
func (c *cluster) refused(texts []string, args ...string) {
	c.t.Helper()
	stdout, stderr, code := c.try(c.via, append([]string{"shoal"}, args...)...)
	if code != 1 {
		c.t.Errorf("shoal %s: exit code %d, want 1\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	for _, text := range texts {
		if !strings.Contains(stderr, text) {
			c.t.Errorf("shoal %s: says %q, want it to contain %q", strings.Join(args, " "), stderr, text)
		}
	}
}

func (c *cluster) address(host string) string {
	c.t.Helper()
	a, err := c.lab.Address(host)
	if err != nil {
		c.t.Fatal(err)
	}
	return a
}

func (c *cluster) image(tag string) string {
	c.t.Helper()
	r, err := c.lab.Registry()
	if err != nil {
		c.t.Fatal(err)
	}
	return r + "/micro:" + tag
}

// must fails the test if a verb of the lab did.
func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// until polls until f returns an empty text, which says what is still wrong, and returns how long it took.
func until(t *testing.T, what string, within time.Duration, f func() string) time.Duration {
	t.Helper()
	started := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := f()
		if wrong == "" {
			return time.Since(started)
		}
		if time.Since(started) > within {
			t.Fatalf("%s: not within %s; last seen: %s", what, within, wrong)
		}
		<-tick.C
	}
}

// taskRow is a line of `shoal service ps --format json`.
type taskRow struct {
	ID, Name, Image, Node, DesiredState, CurrentState, Error, Ports string
}

// tasks lists a service's tasks; live leaves those alone that are wanted and running.
func (c *cluster) tasks(service string, live bool) []taskRow {
	c.t.Helper()
	out := c.shoal("service", "ps", "--no-trunc", "--format", "json", service)
	var rows []taskRow
	for line := range strings.Lines(out) {
		var r taskRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			c.t.Fatalf("service ps printed %q: %v", line, err)
		}
		if !live || r.DesiredState == "Running" && strings.HasPrefix(r.CurrentState, "Running") {
			rows = append(rows, r)
		}
	}
	return rows
}

// converged waits until a service has exactly n running tasks and shows n/n.
func (c *cluster) converged(service string, n int, within time.Duration) time.Duration {
	c.t.Helper()
	want := fmt.Sprintf("%d/%d", n, n)
	return until(c.t, service+" converges to "+want, within, func() string {
		got := c.shoal("service", "ls", "--filter", "name="+service, "--format", "{{.Replicas}}")
		if got != want {
			return got
		}
		return ""
	})
}

// spread counts the live tasks of a service by node.
func (c *cluster) spread(service string) map[string]int {
	c.t.Helper()
	by := map[string]int{}
	for _, r := range c.tasks(service, true) {
		by[r.Node]++
	}
	return by
}
