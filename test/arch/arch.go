// Package arch is the repository testing itself: the rules of the house (docs in CONTRIBUTING.md) that neither the
// compiler nor a linter knows. Which module may import which, how large a file may grow, where a goroutine may start,
// who may touch the operating system, which packages must stay pure.
//
// It reads source with go/parser alone: no type checking, no build, so that it answers in a second and also on a tree
// that does not compile. It must never depend on the code that it judges. It keeps no state and starts no goroutine;
// a Tree is read-only once loaded.
//
// Reading order: this file (what a rule is, and all of them), tables.go (every exception, in one place), then a file
// for each family of rules.
package arch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Breach is one place that breaks a rule.
type Breach struct {
	File string // slash-separated, relative to the root of the repository
	Line int    // from 1; 0 when the whole file or folder is meant
	What string // the fact, with the name of what is wrong
}

// Rule is one promise about the whole tree.
type Rule struct {
	Name  string // short, also the name of its subtest
	Fix   string // what to do about a breach, in words for the person who just met the rule
	Check func(*Tree) []Breach
}

// Rules returns every rule, in the order in which a reader meets them.
func Rules() []Rule {
	return slices.Concat(wallRules(), layoutRules(), sizeRules(), codeRules(), systemRules(), moduleRules())
}

// Run returns the breaches of r in t as lines "file:line: rule: what; what to do", sorted by place.
func (r Rule) Run(t *Tree) []string {
	found := r.Check(t)
	slices.SortFunc(found, func(a, b Breach) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.What, b.What))
	})
	lines := make([]string, 0, len(found))
	for _, b := range slices.Compact(found) {
		place := b.File
		if b.Line > 0 {
			place = fmt.Sprintf("%s:%d", b.File, b.Line)
		}
		lines = append(lines, fmt.Sprintf("%s: %s: %s; %s", place, r.Name, b.What, r.Fix))
	}
	return lines
}
