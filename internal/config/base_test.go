package config_test

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
)

type withBase struct {
	config.Base `yaml:",inline"`
	Extra       int `yaml:"extra"`
}

func TestABaseIsReadInline(t *testing.T) {
	got, err := config.Parse("x.yaml", []byte("advertise: [10.0.0.1, 'fd00::1', host-1.example]\nlog_level: warn\nextra: 3\n"), withBase{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Level() != slog.LevelWarn || got.Folder("store") != "/var/lib/shoal/store" || got.Extra != 3 {
		t.Errorf("%+v", got)
	}
	if want := []string{"10.0.0.1:2381", "[fd00::1]:2381", "host-1.example:2381"}; !slices.Equal(got.Listens(2381), want) || !slices.Equal(got.Addresses(2381), want) {
		t.Errorf("%v, %v", got.Listens(2381), got.Addresses(2381))
	}
	got.Listen = []string{"0.0.0.0:9"}
	if !slices.Equal(got.Listens(2381), got.Listen) || got.Addresses(2381)[0] != "10.0.0.1:9" {
		t.Errorf("%v, %v", got.Listens(2381), got.Addresses(2381))
	}
}

func TestABaseTellsAllFaults(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		fields []string
	}{
		"nothing": {"extra: 1", []string{"advertise"}},
		"everything": {
			"data: here\nadvertise: ['0.0.0.0', '10.0.0.1:80', 'a_b']\nlisten: ['x', ':0', 'h:99999']\nmetrics_listen: '10.0.0.1:9'\nlog_level: loud",
			[]string{"data", "advertise[0]", "advertise[1]", "advertise[2]", "listen[0]", "listen[2]", "metrics_listen", "log_level"},
		},
		"levels that slog would take": {"advertise: [a]\nlog_level: info+4", []string{"log_level"}},
		"loopback":                    {"advertise: [a]\nmetrics_listen: '127.0.0.1:9'", nil},
		"loopback, IPv6":              {"advertise: [a]\nmetrics_listen: '[::1]:9'", nil},
	} {
		_, err := config.Parse("x.yaml", []byte(c.text), withBase{})
		var fields []string
		for _, f := range errs.FaultsOf(err) {
			fields = append(fields, f.Field)
		}
		if !slices.Equal(fields, c.fields) {
			t.Errorf("%s: %v, wanted %v (%v)", name, fields, c.fields, err)
		}
	}
}
