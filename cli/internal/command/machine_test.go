package command_test

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/testx"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/command"
)

// onBare carries out one command line on a machine on which nothing runs; the person answers with in.
func onBare(t *testing.T, in string, spoil func(b *bare), args ...string) (out, said string, code int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env := testx.Env(t)
		b := &bare{t: t, env: env, ca: identitytest.New(t, env, "c1"), cluster: newCluster()}
		spoil(b)
		var stdout, stderr bytes.Buffer
		a := &app.App{
			Env: env, Out: &stdout, Err: &stderr, In: strings.NewReader(in), Programs: b, Host: b,
			Getenv: func(k string) string { return map[string]string{"HOME": "/home/ada"}[k] },
		}
		code = command.Run(t.Context(), a, args)
		out, said = stdout.String(), stderr.String()
	})
	return out, said, code
}

func TestTheDoctorSaysWhatMendsIt(t *testing.T) {
	ill := func(b *bare) {
		b.found = `[{"check":"containerd","grade":"fault","what":"there is no socket","why":"no containers","fix":"install it"},{"check":"runc","grade":"ok","what":"1.1"}]`
	}
	out, said, code := onBare(t, "", ill, "doctor", "-q")
	want := "fault    containerd         there is no socket\n" + strings.Repeat(" ", 28) + "no containers\n" + strings.Repeat(" ", 28) + "fix: install it\n"
	if out != want || code != 1 || said != "1 fault and 0 warnings\nshoal: this machine has 1 fault\n" {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	out, _, code = onBare(t, "", ill, "doctor", "-q", "--format", "json")
	if want := `{"check":"containerd","grade":"fault","what":"there is no socket","why":"no containers","fix":"install it"}` + "\n"; out != want || code != 1 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	out, _, code = onBare(t, "", func(*bare) {}, "doctor", "--format", "{{.Check}} {{.Grade}}")
	if !strings.Contains(out, "systemd ok\n") || strings.Contains(out, "fault") || code != 0 {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestTheDoctorRepairs: what containers have left behind goes when the agent starts anew, which it is told to once; what is well is left alone.
func TestTheDoctorRepairs(t *testing.T) {
	const left = `[{"check":"addresses","grade":"warning","what":"network namespaces of containers that are gone: x.0","why":"w","fix":"f"}]`
	for _, tc := range []struct {
		found    string
		args     []string
		restarts bool
	}{
		{left, []string{"doctor", "--repair"}, true},
		{left, []string{"doctor"}, false},
		{`[{"check":"addresses","grade":"ok","what":"3 network namespaces"}]`, []string{"doctor", "--repair"}, false},
	} {
		_, said, _ := onBare(t, "", func(b *bare) { b.found = tc.found }, tc.args...)
		if got := strings.Contains(said, "restarted shoal-agent"); got != tc.restarts {
			t.Errorf("%v with %s: %s", tc.args, tc.found, said)
		}
	}
}

func TestResetAsksFirst(t *testing.T) {
	full := func(b *bare) {
		if err := b.env.Files.Write("/etc/shoal/agent.yaml", nil, 0o640); err != nil {
			b.t.Fatal(err)
		}
	}
	for answer, want := range map[string]int{"yes\n": 0, "y\n": 1, "": 1, "no\n": 1} {
		out, said, code := onBare(t, answer, full, "node", "reset")
		if code != want || strings.Contains(out, "removed /etc/shoal/agent.yaml") != (want == 0) || !strings.Contains(said, "    /etc/shoal/agent.yaml\n") {
			t.Errorf("%q: exit code %d\n%s%s", answer, code, out, said)
		}
	}
	if out, said, code := onBare(t, "", full, "node", "reset", "-y"); code != 0 || strings.Contains(said, "Type yes") || !strings.Contains(out, "removed /etc/shoal/agent.yaml") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
}
