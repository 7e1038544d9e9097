package pages_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/test/pages"
)

// deployments are where a test of a column of the README's table stands.
func deployments() map[string][]string {
	return map[string][]string{
		"lab": {"test/e2e"}, "systemd": {"test/systemd", "test/operations"}, "compose": {"test/compose", "test/operations"},
	}
}

// sources is all test code of some folders.
func sources(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		names, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	return all.String()
}

// missing says what the sources lack of TestName, or of TestName/07: a test, and in it a step whose name begins with 07.
func missing(code, name string) string {
	test, step, hasStep := strings.Cut(name, "/")
	_, body, ok := strings.Cut(code, "\nfunc "+test+"(t *testing.T) {\n")
	if !ok {
		return "no test " + test
	}
	body, _, _ = strings.Cut(body, "\n}\n")
	if hasStep && !strings.Contains(body, `"`+step+" ") {
		return "no step " + step + " in " + test
	}
	return ""
}

// The README's table says by which test each step of the story is told in which deployment. Those tests exist.
func TestTheStoryIsToldByTheTestsThatTheREADMENames(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "\n| step of the story | ")
	if !ok {
		t.Fatal("the README has no table of the story")
	}
	head, rows, _ := strings.Cut(table, "\n")
	columns := strings.Split(strings.TrimSuffix(head, " |"), " | ")
	code := map[string]string{}
	for _, column := range columns {
		if deployments()[column] == nil {
			t.Fatalf("nothing is known of a deployment %q", column)
		}
		code[column] = sources(t, deployments()[column]...)
	}
	steps := 0
	for row := range strings.Lines(rows) {
		cells := strings.Split(strings.TrimSuffix(strings.TrimSpace(row), " |"), " | ")
		if !strings.HasPrefix(row, "|") {
			break
		}
		if strings.HasPrefix(row, "| ---") {
			continue
		}
		steps++
		if len(cells) != len(columns)+1 {
			t.Errorf("%q has %d cells, wanted %d", row, len(cells), len(columns)+1)
			continue
		}
		if cells[1] == "-" {
			t.Errorf("README: no test in the laboratory tells %s", cells[0])
		}
		for i, column := range columns {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[i+1], -1) {
				if lack := missing(code[column], m[1]); lack != "" {
					t.Errorf("README: %s, by %s: %v has %s", cells[0], column, deployments()[column], lack)
				}
			}
		}
	}
	if steps != 14 {
		t.Errorf("the table has %d steps, the story has 14", steps)
	}
}

// Every operations page parses, and its first line names the test that runs it.
func TestEveryOperationsPageIsRun(t *testing.T) {
	names, err := filepath.Glob("../../docs/operations/*.md")
	if err != nil || len(names) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, name := range names {
		base := filepath.Base(name)
		page, err := pages.Load(name)
		if err != nil {
			t.Error(err)
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		m := regexp.MustCompile(`^<!-- Run by (Test\w+) in (test/\w+)\. -->$`).FindStringSubmatch(first)
		if m == nil {
			if len(page.Blocks) > 0 {
				t.Errorf("%s: the first line does not say which test runs it: <!-- Run by TestX in test/y. -->", base)
			}
			continue
		}
		code := sources(t, m[2])
		if lack := missing(code, m[1]); lack != "" {
			t.Errorf("%s: %s has %s", base, m[2], lack)
		}
		if !strings.Contains(code, `"`+base+`"`) {
			t.Errorf("%s: no test in %s names it", base, m[2])
		}
	}
	if _, err := pages.Load("../../README.md"); err != nil {
		t.Error(err)
	}
}

func TestMissing(t *testing.T) {
	const code = "\nfunc TestA(t *testing.T) {\n\tx(\"07 scale\")\n}\n\nfunc TestB(t *testing.T) {\n\tx(\"08 y\")\n}\n"
	for name, want := range map[string]string{
		"TestA": "", "TestA/07": "", "TestB/08": "", "TestA/08": "no step 08 in TestA", "TestC": "no test TestC", "TestC/1": "no test TestC",
	} {
		if got := missing(code, name); got != want {
			t.Errorf("%s: %q, wanted %q", name, got, want)
		}
	}
}
