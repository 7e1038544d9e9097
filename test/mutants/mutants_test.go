package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The toy keeps one promise, and has a test for it and one that tests nothing.
const (
	toySource = "package toy\n\n// Limit never answers more than 10.\nfunc Limit(n int) int {\n\treturn min(n, 10)\n}\n"
	toyTest   = "package toy\n\nimport \"testing\"\n\nfunc TestLimit(t *testing.T) {\n\tif got := Limit(11); got != 10 {\n\t\tt.Errorf(\"got %d\", got)\n\t}\n}\n\n" +
		"func TestNothing(t *testing.T) {}\n\nfunc TestRed(t *testing.T) { t.Error(\"always\") }\n"
)

// TestVerdicts shows each verdict once: only a green test that the patch turns red, by a test, is a caught mutant.
func TestVerdicts(t *testing.T) {
	cases := []struct {
		name, test, replacement, want string
	}{
		{"caught", "^TestLimit$", "return n", "caught"},
		{"missed", "^TestNothing$", "return n", "stayed green"},
		{"unbuildable", "^TestLimit$", "return m", "does not build"},
		{"red before", "^TestRed$", "return n", "is red without the patch"},
		{"no test", "^TestGone$", "return n", "matches no test"},
		{"moved", "^TestLimit$", "", "no longer applies"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			root := toy(t, patch(c.test, c.replacement))
			var out strings.Builder
			failed, err := Run(t.Context(), root, "", &out)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("output lacks %q:\n%s", c.want, out.String())
			}
			wantFailed, last := 1, "0 passed, 1 failed\n"
			if c.want == "caught" {
				wantFailed, last = 0, "1 passed, 0 failed\n"
			}
			if failed != wantFailed || !strings.HasSuffix(out.String(), last) {
				t.Errorf("failed = %d, want %d and the closing line %q:\n%s", failed, wantFailed, last, out.String())
			}
			if got, err := os.ReadFile(filepath.Join(root, "toy", "toy.go")); err != nil || string(got) != toySource {
				t.Errorf("the checkout was changed: %q, %v", got, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct{ header, filter, want string }{
		"no header":   {"", "", "the header wants"},
		"short test":  {"# promise: x\n# test: toy .\n", "", "wants <module folder> <package> <regexp>"},
		"no match":    {"# promise: x\n# test: toy . X\n", "zzz", "no patch"},
		"bad pattern": {"# promise: x\n# test: toy . X\n", "(", "-run"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Run(t.Context(), toy(t, c.header), c.filter, &strings.Builder{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestPatchesApply finds a mutant that has lost its place long before `make mutants` runs.
func TestPatchesApply(t *testing.T) {
	const root = "../.."
	files, err := filepath.Glob(filepath.Join("patches", "*.patch"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		m, err := parse(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := os.Stat(filepath.Join(root, m.target.module, m.target.path)); err != nil {
			t.Errorf("%s: its test's package: %v", file, err)
		}
		if err := git(t.Context(), root, "apply", "--check", m.file); err != nil {
			t.Errorf("%s no longer applies: %v", file, err)
		}
	}
}

func patch(test, replacement string) string {
	removed := "\treturn min(n, 10)"
	if replacement == "" {
		removed, replacement = "\treturn somethingElse(n)", "return n"
	}
	return "# promise: no answer above 10\n# test: toy . " + test + "\n" +
		"--- a/toy/toy.go\n+++ b/toy/toy.go\n@@ -3,4 +3,4 @@\n // Limit never answers more than 10.\n func Limit(n int) int {\n" +
		"-" + removed + "\n+\t" + replacement + "\n }\n"
}

// toy makes a repository with one module and one patch.
func toy(t *testing.T, text string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range map[string]string{
		"toy/go.mod": "module example.org/toy\n\ngo 1.26.0\n", "toy/toy.go": toySource, "toy/toy_test.go": toyTest,
		patchDir + "/limit.patch": text, "go.work": "go 1.26.0\n\nuse ./toy\n",
	} {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "git", "init", "-q", root)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	return root
}
