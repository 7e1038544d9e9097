package config_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/testx"
)

type settings struct {
	Listen  string        `yaml:"listen"`
	Timeout time.Duration `yaml:"timeout"`
	Peers   []string      `yaml:"peers"`
	TLS     tlsSettings   `yaml:"tls"`
}

type tlsSettings struct {
	Dir   string        `yaml:"dir"`
	Grace time.Duration `yaml:"grace"`
}

func (s settings) Validate() error {
	var c errs.Collector
	c.Check(s.Listen != "", "listen", "is empty; give an address and port")
	c.Check(s.Timeout > 0, "timeout", "%s is not above 0", s.Timeout)
	return c.Err("settings")
}

func defaults() settings {
	return settings{Listen: ":1", Timeout: time.Second, Peers: []string{"a", "b"}, TLS: tlsSettings{Dir: "/tls", Grace: time.Hour}}
}

func load(t *testing.T, text string) (settings, error) {
	t.Helper()
	files := testx.NewFiles()
	if err := files.Write("/etc/shoal/x.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(files, "/etc/shoal/x.yaml", defaults())
}

func TestFileOverridesDefaults(t *testing.T) {
	got, err := load(t, "listen: 10.0.0.1:2381\ntimeout: 500ms\npeers: [c]\ntls:\n  grace: 2160h\n")
	if err != nil {
		t.Fatal(err)
	}
	want := settings{Listen: "10.0.0.1:2381", Timeout: 500 * time.Millisecond, Peers: []string{"c"}, TLS: tlsSettings{Dir: "/tls", Grace: 2160 * time.Hour}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, empty := range []string{"", "# nothing set\n", "---\n", "\n\n"} {
		got, err := load(t, empty)
		if diff := cmp.Diff(defaults(), got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", empty, err, diff)
		}
	}
}

func TestMistakesAreToldWithTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key":        {"listen: x\ntiemout: 1s\n", "[2:1] unknown field \"tiemout\""},
		"unknown nested key": {"tls:\n  dri: x\n", "[2:3] unknown field \"dri\""},
		"repeated key":       {"listen: x\nlisten: y\n", "[2:1]"},
		"wrong type":         {"listen: x\npeers: 5\n", "[2:8]"},
		"bad duration":       {"timeout: soon\n", "[1:10]"},
		"bare number":        {"timeout: 5\n", "[1:10] \"5\" is no duration"},
		"not YAML":           {"listen: [x\n", "[1:9]"},
		"a list":             {"- x\n", "[1:1]"},
		"two documents":      {"listen: x\n---\nlisten: y\n", "second document"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, c.text)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/etc/shoal/x.yaml") {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestValidateTellsAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "listen: ''\ntimeout: -1s\n")
	want := []errs.Fault{
		{Field: "listen", Reason: "is empty; give an address and port"},
		{Field: "timeout", Reason: "-1s is not above 0"},
	}
	if diff := cmp.Diff(want, errs.FaultsOf(err)); diff != "" || !errs.Is(err, errs.Invalid) {
		t.Errorf("%v %s", err, diff)
	}
}

func TestMissingFileIsNotFound(t *testing.T) {
	_, err := config.Load(testx.NewFiles(), "/etc/shoal/none.yaml", defaults())
	if !errs.Is(err, errs.NotFound) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "-config") {
		t.Errorf("got %v", err)
	}
}
