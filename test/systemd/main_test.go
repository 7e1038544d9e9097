package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These name folders with packages that are made already: those that a test begins with, and those that it upgrades to.
const (
	firstPackages = "SHOAL_PACKAGES"
	nextPackages  = "SHOAL_PACKAGES_NEXT"
)

const (
	firstVersion = "v0.0.1"
	nextVersion  = "v0.0.2"
)

// TestMain builds the packages once for all tests, where they are not made already.
func TestMain(m *testing.M) {
	os.Exit(withPackages(m.Run))
}

func withPackages(run func() int) int {
	dir, err := os.MkdirTemp("/var/tmp", "shoal-packages-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(ensurePackages(dir, firstPackages, firstVersion), ensurePackages(dir, nextPackages, nextVersion))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return run()
}

func ensurePackages(dir, variable, version string) error {
	if os.Getenv(variable) != "" {
		return nil
	}
	began := time.Now()
	folder := filepath.Join(dir, version)
	root, err := projectRoot()
	if err == nil {
		err = Package(context.Background(), root, version, folder)
	}
	if err != nil {
		return err
	}
	fmt.Printf("packages %s built in %s\n", version, time.Since(began).Round(time.Millisecond))
	return os.Setenv(variable, folder)
}

// cluster is machines that a test works on.
type cluster struct {
	t *testing.T
	*Machines
}

// bring makes machines that go down with the test.
func bring(t *testing.T, names ...string) *cluster {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("machines are made of namespaces, which takes root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-systemd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // what is left of machines is an error below
	machines, err := Up(t.Context(), Options{
		Dir: filepath.Join(dir, "lab"), Names: names, NoIPv6: names[len(names)-1:], Packages: os.Getenv(firstPackages),
		Cache: filepath.Join(root(t), ".cache", "systemd"), Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, Machines: machines}
	t.Cleanup(func() {
		if t.Failed() {
			c.showLogs()
		}
		if err := machines.Close(); err != nil {
			t.Errorf("take the machines down: %v", err)
		}
		c.nothingOutside(dir)
	})
	return c
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := projectRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// showLogs prints what a person would look at first.
func (c *cluster) showLogs() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second) // the test's own has ended
	defer cancel()
	for _, name := range c.Names() {
		const script = "systemctl list-units --all --no-pager --no-legend 'shoal*' containerd.service; journalctl --no-pager -q -n 60 -o short-monotonic -u 'shoal-*'"
		said, err := c.Run(ctx, name, script)
		if err != nil {
			said = err.Error()
		}
		c.t.Logf("--- %s\n%s", name, said)
	}
}

// nothingOutside: mounts and processes of the machines are gone from the machine outside.
func (c *cluster) nothingOutside(dir string) {
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), dir) {
		c.t.Errorf("mounts of %s are left: %v", dir, err)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.Contains(string(text), dir) {
			c.t.Errorf("a process is left: %s", text)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "lab")); err == nil {
		c.t.Errorf("%s/lab is left", dir)
	}
}

// stepLimit bounds what one script on one machine may take.
const stepLimit = 2 * time.Minute

// try runs a script on a machine.
func (c *cluster) try(name, script string) (string, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), stepLimit)
	defer cancel()
	return c.Run(ctx, name, script)
}

// on runs a script on a machine; it must succeed.
func (c *cluster) on(name, format string, args ...any) string {
	c.t.Helper()
	said, err := c.try(name, fmt.Sprintf(format, args...))
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(said)
}

// must fails the test if a step did.
func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// with is the same cluster for a subtest.
func (c *cluster) with(t *testing.T) *cluster { return &cluster{t: t, Machines: c.Machines} }

// until polls until f returns an empty text, which says what is still wrong, and returns how long it took.
func (c *cluster) until(what string, within time.Duration, f func() string) time.Duration {
	c.t.Helper()
	started := time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		wrong := f()
		if wrong == "" {
			return time.Since(started)
		}
		if time.Since(started) > within {
			c.t.Fatalf("%s: not within %s; last seen: %s", what, within, wrong)
		}
		<-tick.C
	}
}
