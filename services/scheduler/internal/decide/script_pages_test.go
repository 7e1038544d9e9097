package decide_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rulesPage has the rules, each with its number and its scripts.
const rulesPage = "../../../../docs/reference/scheduling.md"

var (
	ruleStart   = regexp.MustCompile(`\*\*([A-Z]\d+)\b[^*]*\*\*`)
	ruleScripts = regexp.MustCompile("[(|] ?((?:`[a-z0-9-]+`[,\\s]*)+)[;)|]")
	ruleNumber  = regexp.MustCompile(`\b[A-Z]\d+\b`)
	scriptName  = regexp.MustCompile("`([a-z0-9-]+)`")
)

// TestEveryScriptNamesItsRule: each rule of the page about scheduling has scripts that show it, and the first line of each
// script says which rules it shows: both name each other, so that a reader finds the one from the other.
func TestEveryScriptNamesItsRule(t *testing.T) {
	page, err := os.ReadFile(rulesPage)
	if err != nil {
		t.Fatal(err)
	}
	rules := rulesOf(t, string(page))
	if len(rules) < 50 {
		t.Fatalf("only %d rules were found in %s", len(rules), rulesPage)
	}
	scripts, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		name := filepath.Base(path)
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a folder: histories that rapid has kept
		}
		first, _, _ := strings.Cut(string(text), "\n")
		cited := ruleNumber.FindAllString(first, -1)
		if !strings.HasPrefix(first, "# Rule") || len(cited) == 0 {
			t.Errorf("the first line of script %s does not say which rules it shows, as in '# Rule P1 of docs/reference/scheduling.md.'", name)
		}
		for _, number := range cited {
			if rules[number] == nil {
				t.Errorf("script %s shows rule %s, which the page does not have", name, number)
			}
		}
		for number, of := range rules {
			if names, cites := slices.Contains(of, name), slices.Contains(cited, number); names && !cites {
				t.Errorf("rule %s names script %s, whose first line does not name the rule", number, name)
			} else if cites && !names {
				t.Errorf("script %s names rule %s, which does not name the script", name, number)
			}
		}
	}
	for number, of := range rules {
		if len(of) == 0 {
			t.Errorf("rule %s has no script", number)
		}
		for _, name := range of {
			if !slices.Contains(scripts, filepath.Join("testdata", name)) {
				t.Errorf("rule %s names script %s, which is not there", number, name)
			}
		}
	}
}

// TestRulesOfSwarmAreKnown: the table of Docker Swarm's rules leads to rules that there are.
func TestRulesOfSwarmAreKnown(t *testing.T) {
	page, err := os.ReadFile(rulesPage)
	if err != nil {
		t.Fatal(err)
	}
	rules := rulesOf(t, string(page))
	_, table, found := strings.Cut(string(page), "## The rules of Docker Swarm, and ours")
	if !found {
		t.Fatal("the table is gone")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	for _, number := range ruleNumber.FindAllString(table, -1) {
		if rules[number] == nil {
			t.Errorf("the table leads to rule %s, which the page does not have", number)
		}
	}
}

// rulesOf are the scripts that each rule of the page names: the first list in brackets, or the last column of a table, between its
// number and the next rule or section.
func rulesOf(t *testing.T, page string) map[string][]string {
	t.Helper()
	rules := map[string][]string{}
	for section := range strings.SplitSeq(page, "\n## ") {
		starts := ruleStart.FindAllStringSubmatchIndex(section, -1)
		for i, at := range starts {
			number, end := section[at[2]:at[3]], len(section)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			if rules[number] != nil {
				t.Errorf("two rules have the number %s", number)
			}
			rules[number] = []string{}
			if list := ruleScripts.FindStringSubmatch(section[at[1]:end]); list != nil {
				for _, name := range scriptName.FindAllStringSubmatch(list[1], -1) {
					rules[number] = append(rules[number], name[1])
				}
			}
		}
	}
	return rules
}
