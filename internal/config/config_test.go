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
	Retries uint64        `yaml:"retries"`
	Small   int8          `yaml:"small"`
	Loud    bool          `yaml:"loud"`
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
		"unknown key":        {"listen: x\ntiemout: 1s\n", "tiemout: unknown key; did you mean timeout? [2:1]"},
		"swapped letters":    {"listne: x\n", "did you mean listen?"},
		"another dash":       {"time-out: 1s\n", "did you mean timeout?"},
		"nothing like it":    {"colour: red\n", "colour: unknown key; the keys are listen, timeout, peers, tls, retries, small, loud [1:1]"},
		"unknown nested key": {"tls:\n  dri: x\n", "tls.dri: unknown key; did you mean dir? [2:3]"},
		"repeated key":       {"listen: x\nlisten: y\n", "listen: is there twice, first at [1:1]; keep one [2:1]"},
		"no list":            {"listen: x\npeers: 5\n", "peers: is the number 5, wanted a list, such as [a, b] [2:8]"},
		"no text":            {"listen: [x]\n", "listen: is a list, wanted a text [1:9]"},
		"no text in a list":  {"peers: [a, {b: c}]\n", "peers[1]: is a group of keys, wanted a text"},
		"no keys":            {"tls: yes please\n", `tls: is the text "yes please", wanted keys with values`},
		"no number":          {"retries: many\n", `retries: is the text "many", wanted a whole number [1:10]`},
		"half a number":      {"retries: 1.5\n", "retries: is the number 1.5, wanted a whole number"},
		"below 0":            {"retries: -1\n", "retries: is -1, wanted at least 0"},
		"too large":          {"small: 300\n", "small: 300 does not fit into 8 bits"},
		"far too large":      {"retries: 99999999999999999999\n", "retries: "},
		"no yes":             {"loud: 'true'\n", `loud: is the text "true", wanted true or false`},
		"no value":           {"timeout:\n", "timeout: is empty, wanted a duration"},
		"bad duration":       {"timeout: soon\n", `timeout: "soon" is no duration`},
		"bare number":        {"timeout: 5\n", `timeout: "5" is no duration; write one with its unit, such as 500ms, 10s or 72h [1:10]`},
		"alias":              {"listen: &a x\n", "an anchor, alias or tag (write the value out)"},
		"not YAML":           {"listen: [x\n", "[1:9]"},
		"a list":             {"- x\n", "is a list, wanted keys with values [1:1]"},
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

// What cannot be read and what Validate refuses come together, each field once.
func TestAllFaultsAreToldAtOnce(t *testing.T) {
	_, err := load(t, "listen: ''\ntimeout: [1]\nsmall: 7\npears: [a]\ntls: {grace: long, dri: x}\nsmall: 8\n")
	want := []errs.Fault{
		{Field: "timeout", Reason: "is a list, wanted a duration, such as 500ms, 10s or 72h [2:10]"},
		{Field: "pears", Reason: "unknown key; did you mean peers? [4:1]"},
		{Field: "tls.grace", Reason: `"long" is no duration; write one with its unit, such as 500ms, 10s or 72h [5:14]`},
		{Field: "tls.dri", Reason: "unknown key; did you mean dir? [5:20]"},
		{Field: "small", Reason: "is there twice, first at [3:1]; keep one [6:1]"},
		{Field: "listen", Reason: "is empty; give an address and port [1:9]"},
	}
	if diff := cmp.Diff(want, errs.FaultsOf(err)); diff != "" || !errs.Is(err, errs.Invalid) {
		t.Errorf("%v %s", err, diff)
	}
}

func TestValidateTellsAllFaultsAtOnce(t *testing.T) {
	_, err := load(t, "listen: ''\ntimeout: -1s\n")
	want := []errs.Fault{
		{Field: "listen", Reason: "is empty; give an address and port [1:9]"},
		{Field: "timeout", Reason: "-1s is not above 0 [2:10]"},
	}
	if diff := cmp.Diff(want, errs.FaultsOf(err)); diff != "" || !errs.Is(err, errs.Invalid) {
		t.Errorf("%v %s", err, diff)
	}
}

func TestValuesAreTakenAsTheyAreWritten(t *testing.T) {
	got, err := load(t, `
listen: 1.10
peers: [on, 007, 'x: y', null-1]
retries: 18446744073709551615
small: -128
loud: true
tls:
  grace: 0
  dir: >-
    a
    b
`)
	want := settings{
		Listen: "1.10", Timeout: time.Second, Peers: []string{"on", "007", "x: y", "null-1"}, TLS: tlsSettings{Dir: "a b"},
		Retries: 18446744073709551615, Small: -128, Loud: true,
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestMissingFileIsNotFound(t *testing.T) {
	_, err := config.Load(testx.NewFiles(), "/etc/shoal/none.yaml", defaults())
	if !errs.Is(err, errs.NotFound) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "-config") {
		t.Errorf("got %v", err)
	}
}
