package harness_test

import (
	"encoding/json"
	"os/exec"
	"testing"

	"github.com/shoalproject/shoal/test/harness"
)

func statusForm(t *testing.T, lab *harness.Lab) {
	text, err := exec.Command(cli(t, lab), "status", "--format", "json", "--dir", lab.Dir()).Output()
	do(t, err)
	var form struct {
		Dir   string
		Hosts []map[string]any
	}
	do(t, json.Unmarshal(text, &form))
	if form.Dir != lab.Dir() || len(form.Hosts) != 3 {
		t.Fatalf("status is %s", text)
	}
	for _, host := range form.Hosts {
		for _, field := range []string{"name", "role", "power", "addresses", "dir", "processes"} {
			if _, ok := host[field]; !ok {
				t.Errorf("host %v has no field %q", host["name"], field)
			}
		}
		processes, _ := host["processes"].([]any)
		if len(processes) == 0 {
			t.Errorf("host %v shows no process", host["name"])
		}
		for _, p := range processes {
			fields, _ := p.(map[string]any)
			for _, field := range []string{"name", "pid", "restarts", "since"} {
				if _, ok := fields[field]; !ok {
					t.Errorf("a process of %v has no field %q", host["name"], field)
				}
			}
		}
	}
}
