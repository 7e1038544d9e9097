package run

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// version, commit and date (of the commit, in UTC) are set by the linker (-X .../internal/run.version=v1.2.3), so that equal
// sources make equal programs; a program that was built otherwise takes what the go command has noted.
var version, commit, date string

// unstamped is the version of a program whose build says nothing of itself.
const unstamped = "(devel)"

// Version is the build's version with its Go version and platform: "v1.2.3 go1.26.7 linux/amd64". Members show it.
func Version() string {
	v, _, _ := build()
	return fmt.Sprintf("%s %s %s/%s", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Commit is what the program was built from, and when that was committed (RFC 3339, UTC); empty where nobody noted it.
func Commit() (hash, committed string) {
	_, hash, committed = build()
	return hash, committed
}

// FullVersion is what -version prints after the program's name: "v1.2.3 (commit 1a2b3c, 2026-01-02T03:04:05Z) go1.26.7
// linux/amd64".
func FullVersion() string {
	v, hash, committed := build()
	_, platform, _ := strings.Cut(Version(), " ")
	if hash == "" {
		return v + " " + platform
	}
	return fmt.Sprintf("%s (commit %s, %s) %s", v, hash, cmp.Or(committed, "of unknown time"), platform)
}

func build() (v, hash, committed string) {
	v, hash, committed = version, commit, date
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(v, unstamped), hash, committed
	}
	if hash == "" {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				hash = s.Value
			case "vcs.time":
				committed = s.Value
			}
		}
	}
	return cmp.Or(v, info.Main.Version, unstamped), hash, committed
}
