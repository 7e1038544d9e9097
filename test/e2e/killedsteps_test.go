package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/failpoint"
	"github.com/shoalproject/shoal/test/harness"
)

// The steps of a task's life on its machine, in their order: the agent is stopped at each, in a build that can be.
var (
	waysUp = []string{
		"agent.prepare", "agent.network-made", "agent.pulled", "agent.snapshot-made", "agent.container-made", "agent.prepared",
		"agent.start", "agent.process-made", "agent.started",
	}
	waysOut = []string{
		"agent.journal-saved", "agent.stop", "agent.process-deleted", "agent.container-deleted", "agent.removed", "agent.network-removed",
	}
)

// victim is a process that is killed while the agent stands at a step.
type victim struct{ host, process string }

var victims = []victim{{"w1", "shoal-agent"}, {"w1", "containerd"}, {"m1", "shoal-dispatcher"}}

// TestKilledAtEveryStep: before each step of a task's life one process that it depends on is killed. The task comes to where it should, as
// the same task, with one start; nothing is left of one that goes; the containers beside it are not touched and answer all requests.
func TestKilledAtEveryStep(t *testing.T) { killedAtEveryStep(t, false) }

func killedAtEveryStep(t *testing.T, all bool) {
	c := bringWith(t, harness.Options{Managers: 1, Workers: 1, Program: stoppable(t)})
	c.shoal("service", "create", "--name", "steady", "-p", "8000", "--replicas", "3", "--constraint", "node.hostname==w1", c.image("1.0.0"))
	settle(t, c, 30000, 3)
	c.on("w1", "mkdir", failpoint.Folder)
	before := starts(c, "w1")
	l := startLoad(t.Context(), published(c.address("m1"), 30000))
	defer l.stop()
	n := 0
	for i := range max(len(waysUp), len(waysOut)) {
		up, out := waysUp[i%len(waysUp)], waysOut[i%len(waysOut)]
		for k := range victims {
			if !all && k != i%len(victims) {
				continue
			}
			// The other one of the pair is killed on the way out, so that each step sees another process die next time.
			c.killedAt(up, victims[k], out, victims[(k+1)%len(victims)], n)
			n++
			if now := starts(c, "w1"); now != before {
				t.Fatalf("after %s and %s the containers beside it are %s, were %s", up, out, now, before)
			}
		}
	}
	t.Logf("%d tasks up and out: %s", n, l.take())
	until(t, "nothing of them is left", 10*time.Second, func() string {
		left, _, _ := c.try("w1", "sh", "-c", "ls /run/shoal/userns; ls -d /run/shoal/volumes/*/layer*; grep -o '/run/shoal/volumes[^ ]*' /proc/self/mountinfo")
		return left
	})
}

// killedAt takes a task up and out again, with a death on each way.
func (c *cluster) killedAt(up string, first victim, out string, second victim, n int) {
	c.t.Helper()
	// One with users of its own has namespaces and mounts that one without has not.
	name, users := fmt.Sprintf("trial-%d", n), []string{"host", "private"}[n%2]
	c.at(up, first, func() {
		c.shoal("service", "create", "--detach", "--name", name, "--userns", users, "--constraint", "node.hostname==w1", c.image("1.0.0"))
	})
	took := c.converged(name, 1, 30*time.Second)
	if rows := c.tasks(name, false); len(rows) != 1 || rows[0].Error != "" {
		c.t.Errorf("%s killed at %s: tasks %+v, want the first one alone", first.process, up, rows)
	}
	c.holds("w1", 4, first.process+" killed at "+up, 30*time.Second)
	// The command waits for the end, which comes after the death.
	c.at(out, second, func() { c.on("m1", "sh", "-c", "shoal service rm "+name+" > /dev/null 2>&1 &") })
	gone := c.holds("w1", 3, second.process+" killed at "+out, 30*time.Second)
	c.t.Logf("%-17s at %-21s up after %-6s %-17s at %-24s gone after %s", first.process, up, took.Round(10*time.Millisecond),
		second.process, out, gone.Round(10*time.Millisecond))
}

// holds waits until a host, whose runtime may just have been killed, has so many containers.
func (c *cluster) holds(host string, n int, what string, within time.Duration) time.Duration {
	c.t.Helper()
	return until(c.t, fmt.Sprintf("%s: %d containers", what, n), within, func() string {
		out, said, code := c.try(host, "ctr", "-n", "shoal", "containers", "ls", "-q")
		if code != 0 || len(strings.Fields(out)) != n {
			return out + said
		}
		return ""
	})
}

// at does something, and kills the victim when the agent of w1 has come to a point.
func (c *cluster) at(point string, v victim, do func()) {
	c.t.Helper()
	file := failpoint.Folder + "/" + point
	c.on("w1", "touch", file)
	do()
	until(c.t, "the agent comes to "+point, 20*time.Second, func() string {
		if _, _, code := c.try("w1", "test", "-e", file+".hit"); code != 0 {
			return "not there"
		}
		return ""
	})
	c.must(c.lab.Kill(c.t.Context(), v.host, v.process))
	c.on("w1", "rm", file+".hit")
}

// stoppable is a folder with the binaries, of which the agent stops at failpoints.
func stoppable(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, args := range [][]string{
		{"sh", "-c", "cp -r bin/shoal* bin/images " + dir},
		{"go", "build", "-tags", "grpcnotrace,failpoint", "-o", dir + "/", "./services/agent/cmd/shoal-agent"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, said)
		}
	}
	return filepath.Join(dir, "shoal-lab")
}
