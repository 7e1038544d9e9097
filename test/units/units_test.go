package units

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const folder = "../../deploy/systemd"

func control() []string { return []string{"ca", "store", "scheduler", "dispatcher", "gateway"} }

func all() []string { return append(control(), "agent", "meshproxy") }

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A process's unit lets it do what it needs, and each thing that it lets it do has its reason beside it.
func TestEveryRightHasAReason(t *testing.T) {
	for _, name := range all() {
		t.Run(name, func(t *testing.T) {
			// The control processes' limit is the issue's. The others' are the best that was found: whoever needs more
			// writes the reason into the unit and the figure here.
			limit := map[string]float64{"agent": 5.9, "meshproxy": 2.0}[name]
			if limit == 0 {
				limit = 1.5
			}
			file, err := filepath.Abs(filepath.Join(folder, "shoal-"+name+".service"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Analyze(t.Context(), file)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("exposure %.1f of at most %.1f", got.Overall, limit)
			if got.Overall > limit {
				t.Errorf("exposure %.1f, at most %.1f is promised; open: %q", got.Overall, limit, got.Open)
			}
			unit := read(t, "shoal-"+name+".service")
			said := comments(unit)
			for _, right := range capabilities(unit) {
				if !strings.Contains(said, " "+right+": ") {
					t.Errorf("%s is given, and no comment of the unit says what for", right)
				}
			}
			for _, setting := range got.Open {
				if !strings.Contains(said, directive(setting)) && !slices.Contains(unexplained(), directive(setting)) {
					t.Errorf("%s is open, and no comment of the unit says why", setting)
				}
			}
		})
	}
}

// unexplained needs no comment of its own: ProtectClock itself lets a clock be read by its device, and capabilities are looked
// at one by one.
func unexplained() []string {
	return []string{"DeviceAllow", "AmbientCapabilities", "CapabilityBoundingSet", "User"}
}

func capabilities(unit string) []string {
	for _, line := range settings(unit) {
		if set, ok := strings.CutPrefix(line, "CapabilityBoundingSet="); ok {
			return strings.Fields(set)
		}
	}
	return []string{"all of them"}
}

// What is true of one control process is true of all: a right that one is given is no accident of a copy.
func TestControlUnitsDifferInNamesAlone(t *testing.T) {
	plain := func(name string) string {
		text := strings.NewReplacer("shoal-"+name, "NAME", "shoal/"+name, "NAME").Replace(read(t, "shoal-"+name+".service"))
		_, rest, _ := strings.Cut(text, "\nWants=") // behind what describes it
		return rest
	}
	for _, name := range control()[1:] {
		if diff := cmp.Diff(plain("ca"), plain(name)); diff != "" {
			t.Errorf("shoal-%s.service differs from shoal-ca.service:\n%s", name, diff)
		}
	}
}

// What every unit must have for `shoal init`, an upgrade, a crash and a hang to go well.
func TestUnitsAreReadyReloadableAndRestarted(t *testing.T) {
	for _, name := range all() {
		lines := settings(read(t, "shoal-"+name+".service"))
		want := []string{
			"ExecStart=/usr/bin/shoal-" + name, "ExecReload=/usr/bin/shoal-" + name + " -check", "ExecReload=/bin/kill -HUP $MAINPID",
			"Type=notify", "TimeoutStartSec=infinity", "WatchdogSec=60s", "Restart=always", "StartLimitIntervalSec=0",
			"RestartPreventExitStatus=78", "StateDirectory=shoal/" + name, "StateDirectoryMode=0700", "NoNewPrivileges=yes",
			"PartOf=shoal.target", "WantedBy=multi-user.target shoal.target",
		}
		if name == "agent" || name == "meshproxy" { // what they have started goes on
			want = append(want, "KillMode=process")
		}
		if name != "agent" {
			want = append(want, "User=shoal-"+name, "ProtectSystem=strict")
			if account := read(t, "sysusers.d/shoal-"+name+".conf"); !strings.Contains(account, "u shoal-"+name+" - ") {
				t.Errorf("sysusers.d/shoal-%s.conf makes no user shoal-%s: %s", name, name, account)
			}
		}
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("shoal-%s.service has no line %s", name, line)
			}
		}
	}
}

// The agent keeps network namespaces by mounts, which containerd must see: a setting that gives it mounts of its own breaks
// every container. (From systemd's exec_needs_mount_namespace.)
func TestAgentSharesTheMachinesMounts(t *testing.T) {
	own := []string{
		"BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths", "LogNamespace", "MountAPIVFS", "MountFlags",
		"MountImages", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateTmp", "ProcSubset", "ProtectControlGroups",
		"ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
		"ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
	}
	for _, line := range settings(read(t, "shoal-agent.service")) {
		if slices.Contains(own, directive(line)) {
			t.Errorf("%s gives the agent mounts of its own", line)
		}
	}
}

// systemd must find nothing to complain about; what the units refer to is there in the least form that it asks for.
func TestSystemdTakesTheUnits(t *testing.T) {
	root := t.TempDir()
	put := func(name, text string, mode os.FileMode) {
		t.Helper()
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	const system = "/usr/lib/systemd/system/"
	put("/bin/kill", "", 0o755)
	for _, name := range []string{"sysinit.target", "basic.target", "shutdown.target", "network-online.target"} {
		put(system+name, "[Unit]\nDescription="+name+"\nDefaultDependencies=no\n", 0o644)
	}
	put(system+"containerd.service", "[Service]\nExecStart=/bin/kill\n", 0o644)
	args := []string{"verify", "--root=" + root, "shoal.target"}
	put(system+"shoal.target", read(t, "shoal.target"), 0o644)
	for _, name := range all() {
		put("/usr/bin/shoal-"+name, "", 0o755)
		put(system+"shoal-"+name+".service", read(t, "shoal-"+name+".service"), 0o644)
		args = append(args, "shoal-"+name+".service")
	}
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// A new process needs a unit.
func TestEveryProcessHasAUnit(t *testing.T) {
	programs, err := filepath.Glob("../../services/*/cmd/shoal-*")
	if err != nil || len(programs) == 0 {
		t.Fatal(programs, err)
	}
	for _, p := range programs {
		if name := strings.TrimPrefix(filepath.Base(p), "shoal-"); !slices.Contains(append(all(), "logger"), name) { // the shim starts loggers
			t.Errorf("%s has no unit in deploy/systemd that is tested here", p)
		}
	}
}
