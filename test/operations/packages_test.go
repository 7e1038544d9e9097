// Package operations follows the pages of docs/operations that need what the laboratory has not: systemd, apt, docker.
package operations

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/pages"
	"github.com/shoalproject/shoal/test/systemd"
)

// The pages about packages are followed on three machines with systemd and apt, one after the other as a person would: each
// stands on the ones before it.
func TestPackagePages(t *testing.T) {
	m := machines(t, "m1", "m2", "m3")
	image, err := m.Image("1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"IMAGE": image}
	for i, name := range m.Names() {
		vars[fmt.Sprintf("M%d", i+1)] = m.Address(name)
	}
	follow := func(name string) {
		t.Helper()
		page, err := pages.Load(filepath.Join("../../docs/operations", name))
		if err != nil {
			t.Fatal(err)
		}
		t.Log(name)
		if err := page.Run(t.Context(), m, pages.Options{Vars: vars, Log: t.Logf, Limit: 3 * time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	follow("install.md")
	follow("first-cluster.md")
	follow("doctor.md")
	follow("where.md")
	checkPlaces(t, m)
	running := map[string]map[string]string{}
	for _, name := range m.Names() {
		running[name] = containers(t, m, name)
		if len(running[name]) != 1 {
			t.Errorf("on %s run %v, one of three replicas is wanted", name, running[name])
		}
	}
	if err := m.Publish(t.Context(), nextPackages(t)); err != nil {
		t.Fatal(err)
	}
	follow("upgrade.md")
	if out, err := m.Run(t.Context(), "m1", "shoal version; shoal-store -version"); err != nil || strings.Count(out, nextVersion[1:]) < 2 {
		t.Errorf("after the upgrade to %s: %v\n%s", nextVersion, err, out)
	}
	for _, name := range []string{"m1", "m2"} { // m3 has left since, and its task runs on another one
		now := containers(t, m, name)
		for id, pid := range running[name] {
			if now[id] != pid {
				t.Errorf("the upgrade touched container %s on %s: process %s before it, %q after it", id, name, pid, now[id])
			}
		}
	}
	left, err := m.Run(t.Context(), "m3", "ls -d /etc/shoal /var/lib/shoal/* /usr/bin/shoal* 2>/dev/null || true")
	if err != nil || left != "" {
		t.Errorf("on m3 is left after leave and purge: %s %v", left, err)
	}
}

const nextVersion = "v0.0.2"

// nextPackages is a folder with packages of a later version, which somebody may have made already.
func nextPackages(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SHOAL_PACKAGES_NEXT"); dir != "" {
		return dir
	}
	dir := filepath.Join(t.TempDir(), "next")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := systemd.Package(t.Context(), root, nextVersion, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// containers are what containerd runs for shoal on a machine, with the ids of their processes.
func containers(t *testing.T, m *systemd.Machines, name string) map[string]string {
	t.Helper()
	said, err := m.Run(t.Context(), name, "ctr -n shoal task ls | tail -n +2")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(said) {
		if words := strings.Fields(line); len(words) == 3 {
			out[words[0]] = words[1]
		}
	}
	return out
}

// machines are up until the test ends.
func machines(t *testing.T, names ...string) *systemd.Machines {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("machines are made of namespaces, which takes root")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-pages-") //nolint:usetesting // overlays need a real file system, sockets a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	packages := os.Getenv("SHOAL_PACKAGES")
	if packages == "" {
		packages = filepath.Join(root, "dist")
	}
	m, err := systemd.Up(t.Context(), systemd.Options{
		Dir: filepath.Join(dir, "lab"), Names: names, Packages: packages, Cache: filepath.Join(root, ".cache", "systemd"),
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("take the machines down: %v", err)
		}
	})
	return m
}

type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// checkPlaces holds the table of where.md to what is there on m1, a manager that is a node, too.
func checkPlaces(t *testing.T, m *systemd.Machines) {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations/where.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `/") {
			continue
		}
		rows++
		cells := strings.Split(strings.TrimPrefix(line, "| "), " | ")
		processes := []string{""}
		if strings.Contains(line, "<process>") {
			processes = []string{"ca", "store", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"}
		}
		for _, process := range processes {
			user := "shoal-" + process
			if process == "agent" {
				user = "root"
			}
			fill := strings.NewReplacer("<process>", process, "<user>", user)
			path, want := fill.Replace(strings.Trim(cells[0], "`")), fill.Replace(cells[1]+" "+cells[2])
			got, err := m.Run(t.Context(), "m1", "stat --format '%U:%G %a' "+path)
			if err != nil || strings.TrimSpace(got) != want {
				t.Errorf("where.md: %s is %s, the page says %s (%v)", path, strings.TrimSpace(got), want, err)
			}
		}
	}
	if rows < 10 {
		t.Errorf("where.md has %d places", rows)
	}
}
