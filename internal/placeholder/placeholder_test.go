package placeholder_test

import (
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/placeholder"
)

// TestExpand: every form stands for what it says, in Docker's spelling; all else is a fault that names what there is.
func TestExpand(t *testing.T) {
	v := placeholder.Values{
		ServiceID: "s1", ServiceName: "web", ServiceLabels: map[string]string{"tier": "front", "com.x/y": "z"},
		NodeID: "n1", NodeHostname: "m1", NodeOS: "linux", NodeArch: "amd64", TaskID: "t1", TaskName: "web.3.t1", TaskSlot: "3",
	}
	for _, tc := range []struct{ text, want, fault string }{
		{text: "plain", want: "plain"},
		{text: "{{.Service.Name}}-{{.Task.Slot}}.{{ .Node.Hostname }}", want: "web-3.m1"},
		{text: "{{.Service.ID}} {{.Node.ID}} {{.Task.ID}} {{.Task.Name}}", want: "s1 n1 t1 web.3.t1"},
		{text: "{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}", want: "linux/amd64"},
		{text: `{{.Service.Labels.tier}} {{index .Service.Labels "com.x/y"}} {{.Service.Labels.none}}.`, want: "front z ."},
		{text: `{{"{{"}}x}}`, want: "{{x}}"},
		{text: "{{.Service.Color}}", fault: "{{.Service.Color}} is not known"},
		{text: "{{range .Service.Labels}}", fault: "is not known"},
		{text: "{{.Task.Slot", fault: "{{ has no }}"},
		{text: "{{.Service.Labels.}}", fault: "is not known"},
	} {
		got, err := placeholder.Expand(tc.text, v)
		if got != tc.want || (err != nil) != (tc.fault != "") || err != nil && (!strings.Contains(err.Error(), tc.fault) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%q: %q, %v; want %q, %q", tc.text, got, err, tc.want, tc.fault)
		}
		if check := placeholder.Check(tc.text); (check != nil) != (tc.fault != "") {
			t.Errorf("%q: the check says %v", tc.text, check)
		}
	}
}

// TestExpandFile: a file may take in the environment and the other files of its container; what is wrong is told by its line,
// without a word of the file, and what comes out is bounded.
func TestExpandFile(t *testing.T) {
	v := placeholder.Values{ServiceName: "web", NodeHostname: "m1"}
	b := placeholder.Beside{Env: map[string]string{"TIER": "front"}, Secrets: map[string]string{"key": "hunter2"}, Configs: map[string]string{"/etc/more": "{{.Node.Hostname}}"}}
	for _, tc := range []struct {
		text, want, fault string
		known             bool // once there is a container
	}{
		{text: `{{.Service.Name}}@{{.Node.Hostname}} {{env "TIER"}}{{env "NONE"}}`, want: "web@m1 front"},
		{text: `key={{ secret "key" }} more={{config "/etc/more"}}`, want: "key=hunter2 more={{.Node.Hostname}}"},
		{text: "hidden\nhidden {{.Color}}", fault: "line 2: a placeholder is not known"},
		{text: "hidden {{", fault: "line 1: {{ has no }}"},
		{text: "{{env TIER}}", fault: "line 1: a placeholder is not known"},
		{text: `{{secret "other"}}`, fault: `it asks for secret "other"`, known: true},
		{text: strings.Repeat(`{{secret "key"}}`, 6), fault: "more than 40 bytes", known: true},
	} {
		got, err := placeholder.ExpandFile(tc.text, v, b, 40)
		if got != tc.want || (err != nil) != (tc.fault != "") || err != nil && (!strings.Contains(err.Error(), tc.fault) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%q: %q, %v; want %q, %q", tc.text, got, err, tc.want, tc.fault)
		}
		if err != nil && (strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: the fault shows the file: %v", tc.text, err)
		}
		if check := placeholder.CheckFile(tc.text); (check != nil) != (tc.fault != "" && !tc.known) {
			t.Errorf("%q: the check says %v", tc.text, check)
		}
	}
}
