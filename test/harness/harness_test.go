package harness_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/test/harness"
)

// TestBareHosts tells what a test may count on, on one lab of three hosts.
func TestBareHosts(t *testing.T) {
	start := time.Now()
	lab := up(t, program(t), 1, 2)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("3 bare hosts took %s, more than the 15 s that are promised", took)
	}
	for _, test := range []struct {
		promise string
		check   func(*testing.T, *harness.Lab)
	}{
		{"a host is a machine of its own", machineOfItsOwn},
		{"exec keeps stdin and exit code", execKeeps},
		{"containerd answers", containerdAnswers},
		{"systemctl speaks as systemd does", systemctlSpeaks},
		{"a process that dies is started again", diesAndReturns},
		{"a paused process stays paused until it is resumed", pauses},
		{"a container of the registry's image runs and leaves nothing after a power cut", containerRuns},
		{"enabled units and the disk survive a power cycle, /run does not", powerCycle},
		{"partition cuts both ways and heal mends", partitions},
		{"isolate and unplug cut one host off", cutsOff},
		{"status keeps its form", statusForm},
		{"a small disk is full when it is full", smallDisk},
		{"mistakes are told with what there is", mistakes},
	} {
		t.Run(test.promise, func(t *testing.T) { test.check(t, lab) })
	}
}

func machineOfItsOwn(t *testing.T, lab *harness.Lab) {
	if got := on(t, lab, 0, "w1", "hostname"); got != "w1\n" {
		t.Errorf("hostname is %q", got)
	}
	if got := on(t, lab, 0, "w1", "cat", "/proc/1/cmdline"); !strings.Contains(got, "host-init") {
		t.Errorf("process 1 is %q, not the host's init", got)
	}
	on(t, lab, 0, "w1", "sh", "-c", "echo mine > /etc/shoal/mark && echo mine > /root/mark && echo mine > /etc/systemd-mark")
	for _, path := range []string{"/etc/shoal/mark", "/root/mark", "/etc/systemd-mark"} {
		on(t, lab, 1, "w2", "test", "-e", path)
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s of a host is on the outer machine", path)
		}
	}
	if _, err := os.Stat(filepath.Join(lab.Dir(), "hosts", "w1", "etc", "shoal", "mark")); err != nil {
		t.Errorf("a host's file is not in its folder: %v", err)
	}
	if got := on(t, lab, 0, "w1", "ls", "/sys/class/net"); got != "eth0\nlo\n" {
		t.Errorf("the host sees the links %q", got)
	}
}

func execKeeps(t *testing.T, lab *harness.Lab) {
	on(t, lab, 0, "m1", "true")
	on(t, lab, 7, "m1", "sh", "-c", "exit 7")
	on(t, lab, 137, "m1", "sh", "-c", "kill -9 $$")
	on(t, lab, 127, "m1", "no-such-command")
	command := exec.Command(cli(t, lab), "exec", "--dir", lab.Dir(), "m1", "--", "cat")
	command.Stdin = strings.NewReader("through stdin")
	if got, err := command.Output(); err != nil || string(got) != "through stdin" {
		t.Errorf("cat: %q, %v", got, err)
	}
}

// cli is the lab's own program, to which the hosts' systemctl is a link.
func cli(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	path, err := filepath.EvalSymlinks(filepath.Join(lab.Dir(), "shims", "systemctl"))
	do(t, err)
	return path
}

func containerdAnswers(t *testing.T, lab *harness.Lab) {
	for _, host := range []string{"m1", "w1", "w2"} {
		if got := on(t, lab, 0, host, "ctr", "version"); !strings.Contains(got, "Server:") {
			t.Errorf("%s: ctr version said %s", host, got)
		}
	}
}

func systemctlSpeaks(t *testing.T, lab *harness.Lab) {
	steps := []struct {
		line string
		code int
		said string
	}{
		{"is-active containerd", 0, "active\n"},
		{"is-enabled containerd.service shoal-agent", 0, "enabled\ndisabled\n"},
		{"is-active shoal-agent", 3, "inactive\n"},
		{"daemon-reload", 0, ""},
		{"enable --now shoal-agent shoal-gateway", 0, ""},
		{"is-active shoal-agent shoal-gateway", 0, "active\nactive\n"},
		{"stop shoal-agent", 0, ""},
		{"is-active --quiet shoal-agent", 3, ""},
		{"start shoal-agent", 0, ""},
		{"restart shoal-agent", 0, ""},
		{"start shoal-ca", 1, ""}, // it ends before it is ready
		{"stop shoal-ca", 0, ""},
		{"disable --now shoal-gateway", 0, ""},
		{"is-enabled shoal-gateway", 1, "disabled\n"},
		{"is-active shoal-gateway", 3, "inactive\n"},
		{"start nonsense", 5, ""},
		{"dance containerd", 2, ""},
	}
	for _, step := range steps {
		got := on(t, lab, step.code, "m1", append([]string{"systemctl"}, strings.Fields(step.line)...)...)
		if got != step.said {
			t.Errorf("systemctl %s said %q, want %q", step.line, got, step.said)
		}
	}
	log := on(t, lab, 0, "m1", "cat", "/var/log/shoal-agent.log")
	if !strings.Contains(log, "agent starts with [-config /etc/shoal/agent.yaml]") || !strings.Contains(log, "agent stops") {
		t.Errorf("the unit's log holds %q", log)
	}
	on(t, lab, 1, "m1", "systemctl", "start", "shoal-store")
	on(t, lab, 0, "m1", "systemctl", "stop", "shoal-store")
	mask := on(t, lab, 0, "m1", "sh", "-c", "head -n1 /var/log/shoal-store.log")
	ignored, err := strconv.ParseUint(strings.Fields(mask)[1], 16, 64)
	do(t, err)
	if ignored&(1<<(syscall.SIGTERM-1)) != 0 {
		t.Errorf("a unit's process inherits SIGTERM as ignored: %s", mask)
	}
}

func diesAndReturns(t *testing.T, lab *harness.Lab) {
	do(t, lab.Start(t.Context(), "m1", "agent"))
	before := process(t, lab, "m1", "shoal-agent")
	do(t, lab.Kill(t.Context(), "m1", "agent"))
	eventually(t, 5*time.Second, "the agent has a new process", func() bool {
		now := process(t, lab, "m1", "shoal-agent")
		return now.State == "active" && now.PID != 0 && now.PID != before.PID && now.Restarts == before.Restarts+1
	})
}

func pauses(t *testing.T, lab *harness.Lab) {
	do(t, lab.Start(t.Context(), "m1", "agent"))
	do(t, lab.Pause(t.Context(), "m1", "agent"))
	pid := process(t, lab, "m1", "shoal-agent").PID
	state := func() string {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		do(t, err)
		return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))[0]
	}
	eventually(t, 2*time.Second, "the agent is stopped", func() bool { return state() == "T" })
	do(t, lab.Resume(t.Context(), "m1", "agent"))
	eventually(t, 2*time.Second, "the agent goes on", func() bool { return state() != "T" })
}

func process(t *testing.T, lab *harness.Lab, host, name string) harness.ProcessStatus {
	t.Helper()
	status, err := lab.Status(t.Context())
	do(t, err)
	for _, h := range status.Hosts {
		for _, p := range h.Processes {
			if h.Name == host && p.Name == name {
				return p
			}
		}
	}
	return harness.ProcessStatus{}
}

func containerRuns(t *testing.T, lab *harness.Lab) {
	registry, err := lab.Registry()
	do(t, err)
	address, err := lab.Address("w2")
	do(t, err)
	image := registry + "/micro:1.0.0"
	on(t, lab, 0, "w2", "ctr", "image", "pull", "--hosts-dir", "/etc/containerd/certs.d", "--platform", "linux/amd64", image)
	on(t, lab, 0, "w2", "ctr", "run", "-d", "--net-host", image, "one")
	var said string
	eventually(t, 5*time.Second, "micro answers another host", func() bool {
		var code int
		said, _, code, err = lab.Exec(t.Context(), "m1", "curl", "-s", "http://"+address+":8000/")
		return err == nil && code == 0
	})
	if !strings.Contains(said, "version=1.0.0\n") || !strings.Contains(said, "address="+address+"\n") {
		t.Errorf("micro said %q", said)
	}
	if len(groups(t, lab.ID()+"/w2/default/one")) == 0 {
		t.Error("the container's cgroup is not below its host's")
	}
	do(t, lab.PowerOff(t.Context(), "w2"))
	if left := groups(t, lab.ID()+"/w2"); len(left) > 0 {
		t.Errorf("a power cut left %v", left)
	}
	do(t, lab.PowerOn(t.Context(), "w2"))
}

// groups lists cgroups whose path ends with the text, in all hierarchies.
func groups(t *testing.T, suffix string) []string {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*/shoal-lab-" + suffix)
	do(t, err)
	unified, err := filepath.Glob("/sys/fs/cgroup/shoal-lab-" + suffix)
	do(t, err)
	return append(found, unified...)
}

func powerCycle(t *testing.T, lab *harness.Lab) {
	on(t, lab, 0, "w1", "systemctl", "enable", "shoal-agent")
	on(t, lab, 0, "w1", "sh", "-c", "echo kept > /var/lib/shoal/kept; echo lost > /run/lost")
	do(t, lab.PowerOff(t.Context(), "w1"))
	if _, _, _, err := lab.Exec(t.Context(), "w1", "true"); err == nil || !strings.Contains(err.Error(), "powered off") {
		t.Errorf("exec on a host that is off: %v", err)
	}
	do(t, lab.PowerOff(t.Context(), "w1")) // again is no fault
	do(t, lab.PowerOn(t.Context(), "w1"))
	do(t, lab.PowerOn(t.Context(), "w1"))
	if got := on(t, lab, 0, "w1", "cat", "/var/lib/shoal/kept"); got != "kept\n" {
		t.Errorf("the disk holds %q", got)
	}
	on(t, lab, 1, "w1", "test", "-e", "/run/lost")
	eventually(t, 5*time.Second, "the enabled unit runs after the boot", func() bool {
		return process(t, lab, "w1", "shoal-agent").State == "active"
	})
	on(t, lab, 0, "w1", "ctr", "version")
}

func smallDisk(t *testing.T, lab *harness.Lab) {
	on(t, lab, 0, "w2", "sh", "-c", "echo before > /var/lib/shoal/before")
	do(t, lab.Disk(t.Context(), "w2", 64<<20))
	if got := on(t, lab, 0, "w2", "cat", "/var/lib/shoal/before"); got != "before\n" {
		t.Errorf("the disk took over %q", got)
	}
	on(t, lab, 1, "w2", "dd", "if=/dev/zero", "of=/var/lib/shoal/big", "bs=1M", "count=100")
	do(t, lab.PowerOff(t.Context(), "w2"))
	if left := loops(t, lab.Dir()); len(left) > 0 {
		t.Errorf("a power cut left loop devices: %v", left)
	}
	do(t, lab.PowerOn(t.Context(), "w2"))
	on(t, lab, 0, "w2", "test", "-e", "/var/lib/shoal/big")
}

// loops lists loop devices on files in a folder.
func loops(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	do(t, err)
	return slices.DeleteFunc(files, func(path string) bool {
		text, err := os.ReadFile(path)
		return err != nil || !strings.HasPrefix(string(text), dir)
	})
}

func mistakes(t *testing.T, lab *harness.Lab) {
	for want, err := range map[string]error{
		`no host "x9"`:               lab.PowerOff(t.Context(), "x9"),
		`no process "shoal-nothing"`: lab.Kill(t.Context(), "m1", "shoal-nothing"),
		`at least two sides`:         lab.Partition(t.Context(), []string{"m1"}),
		`named twice`:                lab.Partition(t.Context(), []string{"m1"}, []string{"m1"}),
		`too small`:                  lab.Disk(t.Context(), "m1", 1),
		`does not run`:               lab.Pause(t.Context(), "m1", "meshproxy"),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	got := harness.ParseSides("m1, m2/w1,w2")
	if diff := cmp.Diff([][]string{{"m1", "m2"}, {"w1", "w2"}}, got); diff != "" {
		t.Error(diff)
	}
}
