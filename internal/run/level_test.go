package run

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLevelMayChange(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	base := AtLevel(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), slog.LevelInfo).With("process", "x")
	log := AtLevel(base, level).With("a", 1)
	log.Debug("first")
	base.Debug("never")
	level.Set(slog.LevelDebug)
	log.Debug("second")
	level.Set(slog.LevelError)
	log.Warn("third")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "msg=second process=x a=1") {
		t.Errorf("%s", got)
	}
}
