package main

import "strings"

// packageVersion is the version in a form that dpkg and rpm take and order as people mean it: what is before a release is
// older than it (~), and there is no hyphen, which would begin a distribution's revision.
//
//	v1.2.3                                 1.2.3
//	v1.2.3-rc.1                            1.2.3~rc.1
//	v0.0.0-20261122120000-abcdef0-dirty    0.0.0~20261122120000.abcdef0.dirty
func packageVersion(v string) string {
	v = strings.TrimPrefix(v, "v")
	release, before, pre := strings.Cut(v, "-")
	if !pre {
		return release
	}
	return release + "~" + strings.ReplaceAll(before, "-", ".")
}
