package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// furnish puts small files in the place of binaries and completions: what a package is made of, without building it.
func furnish(t *testing.T) order {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return order{
		root: root, version: "v1.2.3-rc.1", commit: "abc", date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		arches: []string{"amd64", "arm64"}, formats: []string{"deb", "rpm", "tar"},
	}
}

func write(t *testing.T, o order) string {
	t.Helper()
	work, out := t.TempDir(), t.TempDir()
	for _, arch := range o.arches {
		for _, name := range programs() {
			put(t, filepath.Join(binDir(work, arch), name), strings.Repeat(arch+" "+name+"\n", 1<<15))
		}
	}
	put(t, foreign(work), "theirs")
	for _, shell := range shells() {
		put(t, completion(work, shell), shell)
	}
	o.out = out
	if err := writeAll(o, work); err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// Everything that a package is must come from the commit: two builds on two machines at two times are equal.
func TestPackagesBuiltTwiceAreEqual(t *testing.T) {
	o := furnish(t)
	one := write(t, o)
	// The other one has other folders, and files of another time.
	two := write(t, o)
	names := list(t, one)
	if want := 2*8 + 2 + 2*8 + 2 + 2; len(names) != want || !slices.Equal(names, list(t, two)) {
		t.Fatalf("%d files, wanted %d: %q", len(names), want, names)
	}
	for _, name := range names {
		a, errA := os.ReadFile(filepath.Join(one, name))
		b, errB := os.ReadFile(filepath.Join(two, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs from its second build (%v, %v)", name, errA, errB)
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// contents are the files of packages, as all formats have them, but for two folders that distributions name otherwise.
func contents() map[string][]string {
	unit := func(name string, more ...string) []string {
		return append([]string{"/usr/bin/" + name, "/usr/lib/systemd/system/" + name + ".service"}, more...)
	}
	user := func(name string, more ...string) []string {
		return unit(name, append(more, "/usr/lib/sysusers.d/"+name+".conf")...)
	}
	return map[string][]string{
		"shoal": {
			"/usr/bin/shoal", "/usr/lib/systemd/system/shoal.target", "/usr/lib/sysusers.d/shoal.conf", "/usr/lib/tmpfiles.d/shoal.conf",
			"/usr/share/bash-completion/completions/shoal", "/usr/share/fish/vendor_completions.d/shoal.fish", "/usr/share/zsh/*/_shoal",
			"/usr/share/doc/shoal/third-party-licences.txt",
		},
		"shoal-ca": user("shoal-ca"), "shoal-store": user("shoal-store"), "shoal-scheduler": user("shoal-scheduler"),
		"shoal-dispatcher": user("shoal-dispatcher"), "shoal-gateway": user("shoal-gateway"), "shoal-agent": unit("shoal-agent", "/usr/bin/shoal-logger"),
		"shoal-meshproxy": user("shoal-meshproxy", "/usr/lib/tmpfiles.d/shoal-meshproxy.conf"), "shoal-node": nil, "shoal-manager": nil,
	}
}

func TestPackagesHaveTheirFiles(t *testing.T) {
	out := write(t, furnish(t))
	for name, want := range contents() {
		arch, rpmArch := "amd64", "x86_64"
		if want == nil {
			arch, rpmArch = "all", "noarch"
		}
		var deb []string
		for line := range strings.Lines(tool(t, "dpkg-deb", "-c", filepath.Join(out, name+"_1.2.3~rc.1_"+arch+".deb"))) {
			f := strings.Fields(line)
			if f[1] != "root/root" || f[3]+" "+f[4] != "2026-01-02 03:04" {
				t.Errorf("%s: owner or time: %s", name, line)
			}
			if !strings.HasSuffix(f[5], "/") {
				deb = append(deb, strings.TrimPrefix(f[5], "."))
			}
		}
		check(t, name+".deb", deb, append(want, "/usr/share/doc/"+name+"/copyright"))
		rpm := filepath.Join(out, name+"-1.2.3~rc.1-1."+rpmArch+".rpm")
		// Two builds on one machine could not tell that its name, or the time of a fast build, is in them.
		if got := tool(t, "rpm", "-qp", "--qf", "%{BUILDHOST} %{BUILDTIME} [%{FILEMTIMES} ]", rpm); strings.Trim(got, "0123456789 ") != "shoal" ||
			strings.ReplaceAll(strings.TrimPrefix(got, "shoal"), " 1767323045", "") != " " {
			t.Errorf("%s.rpm: host and times of the build: %s", name, got)
		}
		check(t, name+".rpm", strings.Fields(tool(t, "rpm", "-qlp", rpm)), append(want, "/usr/share/licenses/"+name+"/LICENSE"))
	}
}

func check(t *testing.T, name string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	same := func(a, pattern string) bool { ok, err := filepath.Match(pattern, a); return ok && err == nil }
	if !slices.EqualFunc(got, want, same) {
		t.Errorf("%s has\n%s\nwanted\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestTarballHasAllAsOneTree(t *testing.T) {
	f, err := os.Open(filepath.Join(write(t, furnish(t)), "shoal-1.2.3~rc.1-linux-arm64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for tree := tar.NewReader(zip); ; {
		h, err := tree.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.ModTime.Year() != 2026 {
			t.Errorf("%s: owner %d, time %s", h.Name, h.Uid, h.ModTime)
		}
		if h.Typeflag == tar.TypeReg {
			got = append(got, strings.TrimPrefix(h.Name, "shoal-1.2.3~rc.1-linux-arm64"))
		}
	}
	check(t, "tarball", got, slices.Concat(append(slices.Collect(maps.Values(contents())), []string{"/LICENSE", "/README.md"})...))
}

func TestPackagesDependOnEachOther(t *testing.T) {
	out := write(t, furnish(t))
	deb := func(name, arch string) string {
		return strings.TrimSpace(tool(t, "dpkg-deb", "-f", filepath.Join(out, name+"_1.2.3~rc.1_"+arch+".deb"), "Depends"))
	}
	rpm := func(name, arch string) string {
		return tool(t, "rpm", "-qRp", filepath.Join(out, name+"-1.2.3~rc.1-1."+arch+".rpm"))
	}
	if got := deb("shoal", "amd64"); got != "" {
		t.Errorf("the command line needs %q: it is for any machine", got)
	}
	if got, want := deb("shoal-agent", "amd64"), "shoal (>= 1.2.3~rc.1), containerd | containerd.io, runc | containerd.io"; got != want {
		t.Errorf("shoal-agent.deb: %q, wanted %q", got, want)
	}
	if got := rpm("shoal-agent", "x86_64"); !strings.Contains(got, "(containerd or containerd.io)\n") || !strings.Contains(got, "shoal >= 1.2.3~rc.1\n") {
		t.Errorf("shoal-agent.rpm: %s", got)
	}
	packages := []string{"shoal"}
	for _, p := range slices.Concat(control(), node()) {
		packages = append(packages, "shoal-"+p.name)
	}
	for _, p := range packages { // what is named is there before a script runs
		if got := rpm(p, "x86_64"); !strings.Contains(got, "/bin/sh\n") {
			t.Errorf("%s.rpm has scripts, and does not need what runs them: %s", p, got)
		}
	}
	for _, p := range packages {
		if got := deb("shoal-manager", "all") + ","; !strings.Contains(got, p+" (= 1.2.3~rc.1),") {
			t.Errorf("shoal-manager.deb: no %s of its own version: %s", p, got)
		}
		if got := rpm("shoal-manager", "noarch"); !strings.Contains(got, p+" = 1.2.3~rc.1\n") {
			t.Errorf("shoal-manager.rpm: no %s of its own version: %s", p, got)
		}
	}
	if got := deb("shoal-node", "all"); strings.Contains(got, "shoal-store") || !strings.Contains(got, "shoal-meshproxy (= ") {
		t.Errorf("shoal-node.deb: %s", got)
	}
}

// What comes later must be newer to dpkg and rpm.
func TestVersionsAreOrdered(t *testing.T) {
	order := []string{
		"v0.0.0-20261122120000-abcdef0", "v0.0.0-20261122120000-abcdef0-dirty", "v0.0.0-20261123120000-0123456", "v0.1.0-rc.1", "v0.1.0-rc.2",
		"v0.1.0", "v0.1.1", "v0.10.0", "v1.0.0",
	}
	for i, v := range order {
		if strings.ContainsAny(packageVersion(v), "-v") {
			t.Errorf("%s becomes %s", v, packageVersion(v))
		}
		if i == 0 {
			continue
		}
		before := packageVersion(order[i-1])
		if err := exec.Command("dpkg", "--compare-versions", before, "lt", packageVersion(v)).Run(); err != nil {
			t.Errorf("dpkg: %s is not older than %s", before, packageVersion(v))
		}
	}
}

// Maintainer scripts run by any sh, and say nothing when there is nothing to say.
func TestScriptsAreSound(t *testing.T) {
	o := furnish(t)
	dir := t.TempDir()
	for _, p := range plan(o.root, dir, "amd64", "deb") {
		s, err := scripts(o.root, dir, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{s.PostInstall, s.PreRemove, s.PostRemove} {
			if name == "" {
				continue
			}
			if out, err := exec.Command("sh", "-n", name).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", filepath.Base(name), err, out)
			}
			// dpkg and rpm call them in these ways, too, and then nothing is to be done.
			for _, quiet := range []string{"abort-upgrade", "upgrade", "failed-upgrade", "disappear"} {
				if out, err := exec.Command("sh", name, quiet, "1.0").CombinedOutput(); err != nil || len(out) > 0 {
					t.Errorf("%s %s: %v: %s", filepath.Base(name), quiet, err, out)
				}
			}
			text, err := os.ReadFile(name)
			if err != nil || bytes.Contains(text, []byte("<no value>")) || bytes.Contains(text, []byte("{{")) {
				t.Errorf("%s: %v\n%s", filepath.Base(name), err, text)
			}
		}
	}
}

func TestBadOrdersTellAllFaults(t *testing.T) {
	_, err := parse([]string{"-arch", "amd64,mips", "-format", "zip", "-date", "today"})
	for _, want := range []string{"-version", "-date", `"mips"`, `"zip"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %s", err, want)
		}
	}
}
