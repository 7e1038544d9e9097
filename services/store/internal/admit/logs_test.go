package admit

import (
	"testing"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// What a log driver may be asked for, all faults at once.
func TestLogDriver(t *testing.T) {
	for name, c := range map[string]struct {
		driver *typesv1.LogDriver
		faults int
	}{
		"none said":    {nil, 0},
		"local":        {&typesv1.LogDriver{Options: map[string]string{"max-size": "64k", "max-file": "1", "compress": "false", "max-rate": "2g"}}, 0},
		"journald":     {&typesv1.LogDriver{Name: "journald"}, 0},
		"unknown":      {&typesv1.LogDriver{Name: "syslog"}, 1},
		"with options": {&typesv1.LogDriver{Name: "none", Options: map[string]string{"max-size": "1m"}}, 1},
		"all wrong": {&typesv1.LogDriver{Name: "local", Options: map[string]string{
			"max-size": "2g", "max-file": "0", "compress": "perhaps", "max-rate": "1", "labels": "x",
		}}, 5},
	} {
		f := &Faults{}
		f.logDriver(c.driver)
		if n := len(errs.FaultsOf(f.Err("spec"))); n != c.faults {
			t.Errorf("%s: %d faults, want %d: %v", name, n, c.faults, f.Err("spec"))
		}
	}
}
