package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/goreleaser/nfpm/v2"
)

// room is a copy of this machine's system that nothing outside sees, with a systemctl that only notes what it is told: what is done there
// with rpm is done to no machine. $1 is its folder, $2 what happens in it.
const room = `
mount -t tmpfs none "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay none -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
cp -r "$3" "$1/root/packages"
mount -t tmpfs none "$1/root/run"
mount -t proc none "$1/root/proc"
mkdir -p "$1/root/run/systemd/system"
printf '#!/bin/sh\necho "systemctl $*"\n' > "$1/systemctl"
chmod +x "$1/systemctl"
rm -f "$1/root/usr/bin/systemctl"
cp "$1/systemctl" "$1/root/usr/bin/systemctl"
exec chroot "$1/root" sh -eu -c "$2"
`

// Real rpm takes the packages with all that they need, replaces what runs by an upgrade and starts nothing else, and with the last one
// stops what runs, and leaves a machine's data and says so.
func TestRPMsComeAndGo(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: a system of its own is made of mounts")
	}
	dir := t.TempDir()
	o := furnish(t)
	o.arches, o.formats = []string{runtime.GOARCH}, []string{"rpm"}
	for _, version := range []string{"v1.2.3-rc.1", "v1.2.3"} {
		o.version = version
		if err := os.Rename(write(t, o), filepath.Join(dir, version)); err != nil {
			t.Fatal(err)
		}
	}
	system(t, filepath.Join(dir, "system.rpm"))
	out := inRoom(t, dir, `
rpm() { command rpm --dbpath /db "$@" 2>&1 | grep -v 'Alien instead\|know what you are doing' || true; }
rpm -i /packages/system.rpm
echo "# install"
rpm -U /packages/v1.2.3-rc.1/*.rpm
for user in ca store scheduler dispatcher gateway meshproxy; do id "shoal-$user" > /dev/null; done
stat -c '%F' /run/shoal
mkdir -p /var/lib/shoal/agent
echo kept > /var/lib/shoal/agent/journal
echo "# upgrade"
rpm -U /packages/v1.2.3/*.rpm
rpm -q shoal-agent
rpm -V shoal shoal-agent shoal-meshproxy
echo "# half"
rpm -e shoal
echo "# erase"
rpm -e $(command rpm --dbpath /db -qa | grep ^shoal)
cat /var/lib/shoal/agent/journal
! ls /usr/bin/shoal* /usr/lib/systemd/system/shoal* 2> /dev/null
`)
	parts := map[string]string{}
	for _, part := range strings.Split(out, "# ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		parts[name] = text
	}
	install, upgrade := []string{"systemctl daemon-reload"}, []string{"systemctl daemon-reload"}
	erase := []string{"systemctl daemon-reload", "systemctl stop shoal.target"}
	for _, p := range slices.Concat(control(), node()) {
		unit := "shoal-" + p.name + ".service"
		upgrade = append(upgrade, "systemctl try-restart "+unit)
		erase = append(erase, "systemctl disable "+unit, "systemctl stop "+unit)
	}
	for name, want := range map[string]struct{ told, said []string }{
		"install": {install, []string{"directory"}},
		"upgrade": {upgrade, []string{"shoal-agent-1.2.3-1"}},
		"half":    {nil, []string{"shoal >= 1.2.3 is needed by (installed) shoal-agent"}},
		"erase":   {erase, []string{"to come back: install it again, then systemctl enable --now shoal-agent", "kept"}},
	} {
		var told []string
		for line := range strings.Lines(parts[name]) {
			if strings.HasPrefix(line, "systemctl ") {
				told = append(told, strings.TrimSpace(line))
			}
		}
		slices.Sort(told)
		slices.Sort(want.told)
		if told = slices.Compact(told); !slices.Equal(told, want.told) {
			t.Errorf("%s: %q, wanted %q", name, told, want.told)
		}
		for _, said := range append(want.said, "") {
			if !strings.Contains(parts[name], said) || strings.Contains(parts[name], "scriptlet failed") {
				t.Errorf("%s: wanted %q:\n%s", name, said, parts[name])
			}
		}
	}
}

// system writes a package that has what ours need of others.
func system(t *testing.T, name string) {
	t.Helper()
	packager, err := nfpm.Get("rpm")
	if err != nil {
		t.Fatal(err)
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "system", Arch: "all", Version: "1", Release: "1", Maintainer: maintainer, License: "none", Description: "a system",
		Overridables: nfpm.Overridables{Provides: []string{"/bin/sh", "containerd.io"}},
	})
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := packager.Package(info, f); err != nil {
		t.Fatal(err)
	}
}

func inRoom(t *testing.T, packages, script string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-eu", "-c", room, "room", t.TempDir(), script, packages).CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return string(out)
}
