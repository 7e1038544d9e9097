package arch_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/test/arch"
)

// sample is a tree of one rule: clean files that must pass, and a few more that break it, with the places that the rule
// must name. A rule without a sample, or one that cannot fail, is caught here.
type sample struct {
	rule   string
	clean  map[string]string
	broken map[string]string
	want   []string // "file:line" or "file", sorted
}

func TestEveryRuleCanFail(t *testing.T) {
	all := slices.Concat(wallSamples(), layoutSamples(), sizeSamples(), codeSamples(), systemSamples(), moduleSamples())
	for _, rule := range arch.Rules() {
		at := slices.IndexFunc(all, func(s sample) bool { return s.rule == rule.Name })
		if at < 0 {
			t.Errorf("rule %s has no sample", rule.Name)
			continue
		}
		t.Run(rule.Name, func(t *testing.T) { checkSample(t, rule, all[at]) })
	}
}

func checkSample(t *testing.T, rule arch.Rule, s sample) {
	dir := t.TempDir()
	write(t, dir, workspace())
	write(t, dir, s.clean)
	if found := rule.Run(load(t, dir)); len(found) > 0 {
		t.Errorf("the clean tree has breaches:\n%s", strings.Join(found, "\n"))
	}
	write(t, dir, s.broken)
	var places []string
	for _, line := range rule.Run(load(t, dir)) {
		place := regexp.MustCompile(`^[^: ]+(:\d+)?`).FindString(line)
		if !strings.Contains(line, ": "+rule.Name+": ") || !strings.HasSuffix(line, "; "+rule.Fix) {
			t.Errorf("%q does not name the rule and what to do", line)
		}
		places = append(places, place)
	}
	if !slices.Equal(places, s.want) {
		t.Errorf("breaches at %q, want %q", places, s.want)
	}
}

// workspace is a small copy of ours: the same modules, nothing in them.
func workspace() map[string]string {
	files := map[string]string{}
	var use strings.Builder
	for _, dir := range []string{"proto", "internal", "services/ca", "services/store", "cli", "test"} {
		use.WriteString("use ./" + dir + "\n")
		files[dir+"/go.mod"] = "module example.org/house/" + dir + "\n\ngo 1.26.0\n"
	}
	files["go.work"] = "go 1.26.0\n\n" + use.String()
	return files
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// code joins lines to a file, so that a sample's line numbers can be counted.
func code(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
