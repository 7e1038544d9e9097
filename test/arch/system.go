package arch

import (
	"go/token"
	"path"
	"slices"
	"strings"
)

func systemRules() []Rule {
	return []Rule{
		{"env-seam", "take it from env (run.Env), or move it to a package of systemPackages in test/arch/tables.go", checkSeam},
		{"wall-clock", "wall time is env.Now(); time.Now is for durations, in the packages of clockReaders in test/arch/tables.go", checkClock},
		{"pure-core", "make it an argument: a pure package has no I/O, no clock, no lock, no randomness of its own", checkPure},
	}
}

// seamAllows lists, for each package of the standard library that reaches the operating system, the names that are
// values or types and reach nothing. A package that is not here reaches nothing.
var seamAllows = map[string]func(name string) bool{
	"os": func(n string) bool {
		return strings.HasPrefix(n, "Err") || strings.HasPrefix(n, "O_") || strings.HasPrefix(n, "Mode") || strings.HasPrefix(n, "Is") ||
			slices.Contains([]string{"FileMode", "FileInfo", "DirEntry", "PathError", "Signal"}, n)
	},
	"net": func(n string) bool {
		return n == "Listener" || !strings.HasPrefix(n, "Listen") && !strings.HasPrefix(n, "Dial") && !strings.HasPrefix(n, "Lookup") &&
			!strings.HasPrefix(n, "Interface") && !strings.HasPrefix(n, "Resolve") && !strings.HasPrefix(n, "File") &&
			!strings.HasSuffix(n, "Resolver")
	},
	"crypto/tls": func(n string) bool { return !strings.HasPrefix(n, "Dial") && n != "Listen" && n != "LoadX509KeyPair" },
	"net/http": func(n string) bool {
		return !slices.Contains([]string{"Get", "Head", "Post", "PostForm", "ListenAndServe", "ListenAndServeTLS", "DefaultClient", "DefaultTransport", "FileServer", "Dir"}, n)
	},
	"path/filepath": func(n string) bool {
		return !slices.Contains([]string{"Walk", "WalkDir", "Glob", "EvalSymlinks", "Abs"}, n)
	},
	"syscall":               isErrno,
	"golang.org/x/sys/unix": isErrno,
	"os/exec":               nothing,
	"os/signal":             nothing,
	"os/user":               nothing,
	"io/ioutil":             nothing,
	"plugin":                nothing,
	"log":                   nothing, // writes to standard error behind the injected logger's back
}

func nothing(string) bool { return false }

// isErrno allows errors and signals, which are plain numbers.
func isErrno(n string) bool {
	return n == "Errno" || n == strings.ToUpper(n) && (strings.HasPrefix(n, "E") || strings.HasPrefix(n, "SIG"))
}

// checkSeam leaves out tests, main packages and systemPackages.
func checkSeam(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		exempt := f.Test || f.Generated || f.AST.Name.Name == "main" || systemPackages[f.Dir] != "" || under(f.Dir, "internal/testx")
		if exempt || !under(f.Dir, "services", "internal") {
			continue
		}
		f.uses(func(pkg, name string, at token.Pos) {
			if allows := seamAllows[pkg]; allows != nil && !allows(name) {
				found = append(found, f.breach(at, "%s.%s touches the system", path.Base(pkg), name))
			}
		})
	}
	return found
}

func checkClock(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if f.Test || f.Generated || clockReaders[f.Dir] != "" || under(f.Dir, "internal/testx") || !under(f.Dir, "services", "internal") {
			continue
		}
		f.uses(func(pkg, name string, at token.Pos) {
			if pkg == "time" && name == "Now" {
				found = append(found, f.breach(at, "time.Now"))
			}
		})
	}
	return found
}

func isPure(dir string) bool {
	for pattern := range purePackages {
		folder, below := strings.CutSuffix(pattern, "/...")
		if dir == folder || below && under(dir, folder) {
			return true
		}
	}
	return false
}

// checkPure looks at direct imports: the generated messages import grpc and os by way of protobuf, and are data here.
func checkPure(t *Tree) []Breach {
	var found []Breach
	for _, f := range t.Files {
		if f.Test || f.Generated || !isPure(f.Dir) {
			continue
		}
		f.imports(func(p string, at token.Pos) {
			if to, ours := strings.CutPrefix(p, t.Root+"/"); ours {
				if !under(to, "proto", "internal/errs") && !isPure(to) {
					found = append(found, f.breach(at, "imports %s, which is not pure", to))
				}
				return
			}
			if bannedInPure(p) {
				found = append(found, f.breach(at, "imports %s", p))
			}
		})
		f.uses(func(pkg, name string, at token.Pos) {
			if pkg == "sync" && pureWithLock[f.Dir] != "" {
				return
			}
			if impureName(pkg, name) {
				found = append(found, f.breach(at, "%s.%s", pkg, name))
			}
		})
	}
	return found
}

func bannedInPure(p string) bool {
	if under(p, "net/netip", "google.golang.org/grpc/codes") {
		return false
	}
	return under(p, "net", "os", "syscall", "golang.org/x/sys", "google.golang.org/grpc", "crypto/rand", "math/rand", "log", "io/ioutil") &&
		p != "math/rand/v2"
}

func impureName(pkg, name string) bool {
	switch pkg {
	case "time":
		return slices.Contains([]string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}, name)
	case "sync":
		return strings.HasSuffix(name, "Mutex") || name == "Map" || name == "Pool" || name == "Cond"
	case "math/rand/v2": // a generator is an argument; the package's own is not ours to seed
		return !slices.Contains([]string{"Rand", "New", "NewPCG", "NewChaCha8", "PCG", "ChaCha8", "Source"}, name)
	}
	return false
}
