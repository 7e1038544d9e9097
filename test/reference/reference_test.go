package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The pages in the tree are what the code says.
func TestPagesAreCurrent(t *testing.T) {
	if err := work("../..", true); err != nil {
		t.Error(err)
	}
	for _, p := range processes() {
		keys, err := keysOf("../..", p)
		if err != nil || len(keys) < 4 {
			t.Errorf("%s: %d keys, %v", p.name, len(keys), err)
		}
	}
}

// A key that says too little about itself, or something else than the code, is a fault.
func TestAKeyMustSayWhatItIs(t *testing.T) {
	for name, c := range map[string]struct{ field, defaults, want string }{
		"all is well":      {"// Lease is a time. Limits: at least 1s.\nLease time.Duration `yaml:\"lease\"`", "Lease: 90 * time.Second", "| `lease` | duration | `1m30s` | at least 1s | restart | a time |"},
		"reload":           {"// Loud is to shout. Reload: live.\nLoud bool `yaml:\"loud\"`", "Loud: true", "| `loud` | true or false | `true` |  | live | to shout |"},
		"no comment":       {"Lease time.Duration `yaml:\"lease\"`", "Lease: time.Hour", "Lease: has no comment"},
		"no default":       {"// Name is a name.\nName string `yaml:\"name\"`", "", `say "Default: …."`},
		"another default":  {"// Name is a name. Default: a.\nName string `yaml:\"name\"`", `Name: "b"`, "the comment says the default is a, DefaultConfig says b"},
		"no limits":        {"// N is a number. Unit: bytes.\nN int `yaml:\"n\"`", "N: 4 << 20", `say "Limits: …."`},
		"no unit":          {"// N is a number. Limits: 1 to 9.\nN int `yaml:\"n\"`", "N: 4", `say "Unit: …."`},
		"no example":       {"// Name is a name. Required.\nName string `yaml:\"name\"`", "", `say "Example: …."`},
		"said twice":       {"// N is a number. Unit: a. Unit: b.\nN int `yaml:\"n\"`", "N: 1", `says "Unit" twice`},
		"no tag":           {"// N is a number.\nN int", "N: 1", "no yaml tag"},
		"not a constant":   {"// Name is a name.\nName string `yaml:\"name\"`", "Name: here()", "no constant that can be read"},
		"place of a value": {"// Name is here: <port> of <process>. Default: <process>.\nName string `yaml:\"name\"`", "", "| `name` | text | `x` |  | restart | here: 7 of x |"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			source := "package x\n\n// Config is it.\ntype Config struct {\n" + c.field + "\n}\n\nfunc DefaultConfig() Config { return Config{" + c.defaults + "} }\n"
			if err := os.MkdirAll(filepath.Join(root, "services", "x"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "services", "x", "x.go"), []byte(source), 0o600); err != nil {
				t.Fatal(err)
			}
			text, err := page(root, process{"x", 7})
			if err != nil {
				text = []byte(err.Error())
			}
			if !strings.Contains(string(text), c.want) {
				t.Errorf("got %s\nwant %s", text, c.want)
			}
		})
	}
}

// The keys that say they are live are the ones that a reload puts into force.
func TestLiveKeysAreWhatAReloadTakes(t *testing.T) {
	text, err := os.ReadFile("../../internal/process/reload.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nfunc live() []string { return []string{")
	list, _, ok := strings.Cut(rest, "} }\n")
	if !ok {
		t.Fatal("internal/process has no function live that lists the keys")
	}
	for _, p := range processes() {
		keys, err := keysOf("../..", p)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if live := strings.Contains(list, strconv.Quote(k.name)); live != (k.live() == "live") {
				t.Errorf("%s: %s says %s, internal/process/reload.go has %s", p.name, k.name, k.live(), list)
			}
		}
	}
}

func TestPageThatIsOldIsNamed(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"internal", "services", "proto"} {
		from, err := filepath.Abs(filepath.Join("../..", dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(from, filepath.Join(root, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(root, folder), 0o700); err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile(filepath.Join("../..", specExamples))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, specExamples), examples, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := work(root, false); err != nil {
		t.Fatal(err)
	}
	if err := work(root, true); err != nil {
		t.Errorf("what was just written: %v", err)
	}
	name := filepath.Join(root, folder, "store.md")
	if err := os.WriteFile(name, []byte("# old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := work(root, true); err == nil || !strings.Contains(err.Error(), "store.md") || strings.Contains(err.Error(), "ca.md") {
		t.Errorf("got %v, want store.md alone", err)
	}
}

// TestSpecPage: every field of the protos has its row, and the words of enums and comments are the protos'.
func TestSpecPage(t *testing.T) {
	text, err := specText("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## ContainerSpec\n", "| `mounts` | list of [Mount](#mount) | What is mounted into it. |", "| `type` | bind, volume, tmpfs | What kind. Default volume. |",
		"| `sysctls` | map |", "`--cap-add NET_ADMIN`",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestEval(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "10_000": "10000", "4 << 20": "4194304", "500 * time.Millisecond": "500ms", "time.Minute": "1m", "2 * time.Hour": "2h",
		`"a" + "b"`: "ab", "true": "true", "3 - 1": "2", "f()": "",
	} {
		e, err := parser.ParseExprFrom(token.NewFileSet(), "", text, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if v, duration, err := eval(ast.Unparen(e)); err == nil {
			got = yamlOf(v, duration)
		}
		if got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
}

// A field of the service spec that has neither an example nor another way to be set is a fault, which names it.
func TestAFieldMustHaveAnExample(t *testing.T) {
	proto := "// ServiceSpec is one.\nmessage ServiceSpec {\n  // A.\n  string a = 1;\n  // B.\n  Inner b = 2;\n}\n\n// Inner is in it.\nmessage Inner {\n  // C.\n  string c = 1;\n}\n"
	for examples, want := range map[string]string{
		"ServiceSpec.a: --a x\nInner.c = filled in by the store\n": "",
		"ServiceSpec.a: --a x\n":                                   "of Inner.c",
		"Inner.c: --c x\n":                                         "of ServiceSpec.a",
		"ServiceSpec.a --a x\n":                                    "is not `Message.field: flags`",
	} {
		root := t.TempDir()
		for name, text := range map[string]string{filepath.Join(filepath.Dir(specProtos), "a.proto"): proto, specExamples: examples} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		page, err := specText(root)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", examples, err, want)
		}
		if err == nil && !strings.Contains(string(page), "| C. | filled in by the store |") {
			t.Errorf("%s", page)
		}
	}
}
