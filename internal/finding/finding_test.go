package finding_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/internal/testx"
)

type settings struct {
	config.Base `yaml:",inline"`
	Socket      string `yaml:"socket"`
}

func look(s settings) []finding.Finding {
	if s.Socket == "/gone" {
		return []finding.Finding{finding.Faulty("socket", "there is none at /gone", "nothing runs", "start it")}
	}
	return []finding.Finding{finding.Well("socket", "%s", s.Socket)}
}

// A machine must be looked at before it has a config, with half of one, and with a broken one.
func TestTheVerbLooksWhateverTheConfig(t *testing.T) {
	for config, want := range map[string]struct {
		code int
		out  string
	}{
		"":                           {0, "ok       socket             /default\n"},
		"socket: /mine\n":            {0, "ok       socket             /mine\n"},
		"socket: /gone\n":            {1, "fault    socket             there is none at /gone; nothing runs; start it\n"},
		"socket: /mine\nnonsense: 1": {0, "warning  configuration"},
	} {
		files := testx.NewFiles()
		if config != "" {
			if err := files.Write("/etc/shoal/x.yaml", []byte(config), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		var out, said bytes.Buffer
		code := finding.Verb(files, "x", nil, &out, &said, settings{Socket: "/default"}, look)
		if code != want.code || !strings.HasPrefix(out.String(), want.out) {
			t.Errorf("%q: exit code %d, %q, said %q", config, code, out.String(), said.String())
		}
		if strings.HasPrefix(want.out, "warning") && !strings.Contains(out.String(), "/default") {
			t.Errorf("%q: the defaults were not looked at: %q", config, out.String())
		}
	}
	var out bytes.Buffer
	if code := finding.Verb(testx.NewFiles(), "x", []string{"-format", "xml"}, &out, &out, settings{}, look); code != 2 {
		t.Errorf("a wrong flag: exit code %d", code)
	}
}

func TestFindingsSurviveJSON(t *testing.T) {
	list := []finding.Finding{finding.Well("a", "<%d>", 1), finding.Faulty("b", "it is", "so", "do")}
	var out bytes.Buffer
	if err := finding.Print(&out, list, "json"); err != nil {
		t.Fatal(err)
	}
	got, err := finding.Parse(out.Bytes())
	if diff := cmp.Diff(list, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := finding.Err("join", got); err == nil || err.Error() != "join: b: it is; so; do" {
		t.Errorf("%v", err)
	}
	if finding.Err("join", list[:1]) != nil {
		t.Error("a finding that is well is no fault")
	}
}
