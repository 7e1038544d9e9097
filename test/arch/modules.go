package arch

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

func moduleRules() []Rule {
	return []Rule{
		{"equal-versions", "make fix-tidy", checkVersions},
		{"sibling-replace", "add a replace with the relative path: go mod tidy does not read go.work", checkReplace},
	}
}

// checkVersions wants one version of each dependency, and one go line, in all go.mod: what is tested in the workspace
// is then what a build with GOWORK=off links.
func checkVersions(t *Tree) []Breach {
	seen := map[string]map[string][]string{} // path, version, folders
	note := func(p, version, dir string) {
		if seen[p] == nil {
			seen[p] = map[string][]string{}
		}
		seen[p][version] = append(seen[p][version], dir)
	}
	for _, m := range t.Modules {
		note("go", m.Go, m.Dir)
		for _, r := range m.Require {
			if !under(r.Path, t.Root) {
				note(r.Path, r.Version, m.Dir)
			}
		}
	}
	var found []Breach
	for p, versions := range seen {
		if len(versions) < 2 {
			continue
		}
		var list []string
		var first string
		for version, dirs := range versions {
			slices.Sort(dirs)
			list = append(list, version+" in "+strings.Join(dirs, ", "))
			if first == "" || dirs[0] < first {
				first = dirs[0]
			}
		}
		slices.Sort(list)
		found = append(found, Breach{File: first + "/go.mod", What: p + ": " + strings.Join(list, " but ")})
	}
	return found
}

func checkReplace(t *Tree) []Breach {
	byPath := map[string]*Module{}
	for _, m := range t.Modules {
		byPath[m.Path] = m
	}
	var found []Breach
	for _, m := range t.Modules {
		for _, r := range m.Require {
			if !under(r.Path, t.Root) {
				continue
			}
			at := path.Clean(path.Join(m.Dir, m.Replace[r.Path]))
			sibling := byPath[r.Path]
			switch {
			case sibling == nil:
				found = append(found, Breach{File: m.Dir + "/go.mod", What: "requires " + r.Path + ", which go.work does not use"})
			case m.Replace[r.Path] == "":
				found = append(found, Breach{File: m.Dir + "/go.mod", What: "requires " + r.Path + " without a replace"})
			case at != sibling.Dir:
				found = append(found, Breach{File: m.Dir + "/go.mod", What: fmt.Sprintf("replaces %s by %s, it is in %s", r.Path, at, sibling.Dir)})
			}
		}
	}
	return found
}
