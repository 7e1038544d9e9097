package run

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/config"
)

func TestReloadTellsWhatHasChangedSinceTheStart(t *testing.T) {
	type process struct {
		config.Base `yaml:",inline"`
		Lease       time.Duration `yaml:"lease"`
	}
	now := process{Lease: time.Second}
	var fault error
	r := NewReload(nil, now, func() (process, error) { return now, fault })
	now.LogLevel, now.Lease = "debug", 2*time.Second
	for range 2 { // what needs a restart is named until there was one
		base, changed, err := r.Read()
		if err != nil || base.LogLevel != "debug" || !slices.Equal(changed, []string{"log_level", "lease"}) {
			t.Errorf("%+v, %q, %v", base, changed, err)
		}
	}
	fault = errors.New("bad file")
	if _, changed, err := r.Read(); !errors.Is(err, fault) || changed != nil {
		t.Errorf("%q, %v", changed, err)
	}
}

func TestNobodyAsksWithoutReload(t *testing.T) {
	var none *Reload
	select {
	case <-none.Asked():
		t.Error("asked")
	default:
	}
}

func TestHangupAsksForReload(t *testing.T) {
	asked := hangups(t.Context())
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-time.After(5 * time.Second):
		t.Error("a SIGHUP asked for nothing")
	}
}
