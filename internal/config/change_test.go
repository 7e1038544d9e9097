package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/config"
)

func TestChangedNamesKeysAsTheFileDoes(t *testing.T) {
	type process struct {
		config.Base `yaml:",inline"`
		Lease       time.Duration `yaml:"lease"`
	}
	before := process{Base: config.Base{Data: "/a", Advertise: []string{"10.0.0.1"}}, Lease: time.Second}
	after := before
	after.Advertise = []string{"10.0.0.1"}
	if got := config.Changed(before, after); got != nil {
		t.Errorf("nothing has changed, got %q", got)
	}
	after.Advertise, after.LogLevel, after.Lease = []string{"10.0.0.2"}, "debug", 2*time.Second
	if diff := cmp.Diff([]string{"advertise", "log_level", "lease"}, config.Changed(before, after)); diff != "" {
		t.Error(diff)
	}
	if base, ok := config.BaseOf(after); !ok || base.LogLevel != "debug" {
		t.Errorf("%+v, %v", base, ok)
	}
	if _, ok := config.BaseOf(struct{ Base string }{}); ok {
		t.Error("a config without a Base has one")
	}
}
