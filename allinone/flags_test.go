package allinone

import (
	"bytes"
	"strings"
	"testing"
)

func TestCommandLines(t *testing.T) {
	getenv := func(name string) string { return map[string]string{"HOME": "/root"}[name] }
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
	}{
		{"version", []string{"-version"}, exitOK, []string{"shoal-dev "}},
		{"help", []string{"--help"}, exitOK, []string{"--advertise-addr address", "(default /root/.local/share/shoal-dev)", "--keep "}},
		{"unknown flag", []string{"--kepe"}, exitMisuse, []string{"-kepe"}},
		{"unknown command", []string{"start"}, exitMisuse, []string{`no command "start"`}},
		{"all faults", []string{"--data", "/", "--advertise-addr", "here", "--log-format", "xml", "--log-level", "loud", "--context", "a b", "--containerd", "x"},
			exitMisuse, []string{"6 faults"}},
		{"folder too deep", []string{"--data", "/" + strings.Repeat("x", 70)}, exitMisuse, []string{"names of sockets"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, said bytes.Buffer
			code := Command(t.Context(), c.args, Streams{Out: &out, Err: &said}, getenv)
			text := out.String() + said.String()
			for _, want := range c.says {
				if code != c.code || !strings.Contains(text, want) {
					t.Errorf("exit code %d, says %q; want %d and %q", code, text, c.code, want)
				}
			}
		})
	}
}
