package vm

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

//nolint:gochecknoglobals // flags of this test
var accel = flag.String("accel", "kvm", "qemu's accelerator; tcg needs no /dev/kvm and takes ten times as long")

// suite is tests of another package that run in the machine.
type suite struct{ pkg, tests string }

// suites are what shows only on a machine with a distribution's kernel and cgroup v2.
func suites() []suite {
	return []suite{
		// Limits, devices, out of memory, what is used; user namespaces.
		{"services/agent/internal/executor", "^Test(Life|Options|Memory|Usage|Conforms|UserNamespace|InsideUserNamespace)$"},
		// Published ports and SCTP; networks and the mesh by the kernel's WireGuard.
		{"services/meshproxy/internal/tables", "^Test(SCTP|SealedMesh|SealedNetwork|ForgedSealedPacket|SealedOverIPv6)$"},
	}
}

// TestSuites: what passes in the laboratory passes on Debian's kernel with cgroup v2 alone.
func TestSuites(t *testing.T) {
	m := boot(t)
	m.on(aptInstall + "containerd runc nftables conntrack && systemctl stop containerd")
	tests := filepath.Join(m.opts.Dir, "guest") // which the machine sees
	m.build(tests, "build", "-o", "probe", "./services/agent/internal/executor/testdata/probe")
	for _, s := range suites() {
		t.Run(filepath.Base(s.pkg), func(t *testing.T) {
			m := m.with(t)
			m.build(tests, "test", "-c", "-o", filepath.Base(s.pkg)+".test", "./"+s.pkg)
			m.on("cd " + filepath.Join(m.opts.Root, s.pkg) + " && SHOAL_PROBE=/run/guest/probe timeout --kill-after=5 1200 /run/guest/" +
				filepath.Base(s.pkg) + ".test -test.v -test.run '" + s.tests + "'")
		})
	}
}

// machine is a machine that a test types on.
type machine struct {
	*Machine
	t *testing.T
}

// boot makes a machine that goes with the test.
func boot(t *testing.T) *machine {
	t.Helper()
	root, shared, err := Project(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-vm-") //nolint:usetesting // its long name does not fit into the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	m, err := Boot(t.Context(), Options{
		Dir: dir, Root: root, Share: shared, Accel: *accel, Cache: filepath.Join(root, ".cache", "vm"),
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return &machine{Machine: m, t: t}
}

func (m *machine) with(t *testing.T) *machine { return &machine{Machine: m.Machine, t: t} }

// stepLimit bounds what one script may take.
const stepLimit = 25 * time.Minute

// on runs a script that must succeed, and returns what it says.
func (m *machine) on(script string) string {
	m.t.Helper()
	began := time.Now()
	said, err := m.try(script)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", script, err, said)
	}
	m.t.Logf("%s: %.100q", time.Since(began).Round(time.Millisecond), script)
	return strings.TrimSpace(said)
}

func (m *machine) try(script string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), stepLimit)
	defer cancel()
	return m.Run(ctx, script)
}

// build runs the go command outside, with its results in a folder.
func (m *machine) build(folder, verb string, args ...string) {
	m.t.Helper()
	for i, arg := range args {
		if i > 0 && args[i-1] == "-o" {
			args[i] = filepath.Join(folder, arg)
		}
	}
	command := exec.CommandContext(m.t.Context(), "go", append([]string{verb}, args...)...)
	command.Dir, command.Env = m.opts.Root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := command.CombinedOutput(); err != nil {
		m.t.Fatalf("go %s %s: %v\n%s", verb, strings.Join(args, " "), err, said)
	}
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
