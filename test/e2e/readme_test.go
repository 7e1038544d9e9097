package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/pages"
)

// clone runs the README's scripts in a clone of the project.
type clone struct{ dir, lab string }

func (c clone) Run(ctx context.Context, _, script string) (string, error) {
	command := exec.CommandContext(ctx, "bash", "-c", script)
	command.Dir = c.dir
	command.Env = append(os.Environ(), "SHOAL_LAB_DIR="+c.lab, "SUDO_USER=", "MAKEFLAGS=", "GOWORK=")
	out, err := command.Output()
	return string(out), err
}

// newClone clones the project as it is committed, and then lays over it what is not committed yet.
func newClone(t *testing.T, to string) {
	t.Helper()
	const script = `
git clone --quiet --no-hardlinks "$1" "$2"
cd "$1"
git ls-files -z --deleted | (cd "$2" && xargs -0 --no-run-if-empty rm -f)
git ls-files -z --modified --others --exclude-standard --deduplicate |
  while IFS= read -r -d '' name; do [ ! -e "$name" ] || cp --parents --preserve=mode "$name" "$2"; done`
	out, err := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script, "bash", root(t), to).CombinedOutput()
	if err != nil {
		t.Fatalf("clone: %v\n%s", err, out)
	}
}

// What the README says to type works on a fresh clone, from top to bottom. `make test` would run this test in itself, so it
// is only followed with SHOAL_README=full.
func TestReadme(t *testing.T) {
	parent, err := os.MkdirTemp("/var/tmp", "shoal-readme-")
	if err != nil {
		t.Fatal(err)
	}
	c := clone{dir: filepath.Join(parent, "shoal"), lab: filepath.Join(parent, "lab")}
	t.Cleanup(func() {
		if err := harness.DownDir(c.lab, ""); err != nil {
			t.Errorf("take down what is left: %v", err)
		}
		_ = os.RemoveAll(parent) // what is left of a lab was an error above
	})
	newClone(t, c.dir)
	page, err := pages.Load(filepath.Join(c.dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	opts := pages.Options{
		Limit: 15 * time.Minute, Log: t.Logf, When: strings.Fields(os.Getenv("SHOAL_README")),
		After: func(b pages.Block, _ string) error {
			words := strings.Fields(b.Text)
			seen[words[1]] = true
			switch words[1] {
			case "demo":
				return c.answers(t.Context())
			case "demo-down":
				if _, err := os.Stat(c.lab); err == nil {
					return fmt.Errorf("%s is left", c.lab)
				}
			}
			return nil
		},
	}
	if err := page.Run(t.Context(), c, opts); err != nil {
		t.Fatal(err)
	}
	if !seen["demo"] || !seen["demo-down"] {
		t.Errorf("the README does not say to run make demo and make demo-down: %v", seen)
	}
}

// answers asks the demo's service on every machine.
func (c clone) answers(ctx context.Context) error {
	lab, err := harness.Open(c.lab, filepath.Join(c.dir, "bin", "shoal-lab"), nil)
	if err != nil {
		return err
	}
	hosts, err := lab.Hosts()
	if err != nil || len(hosts) != 3 {
		return fmt.Errorf("the demo has hosts %v, wanted three: %w", hosts, err)
	}
	for _, host := range hosts {
		address, err := lab.Address(host)
		if err != nil {
			return err
		}
		if _, err := ask(ctx, published(address, 30000)); err != nil {
			return fmt.Errorf("%s does not answer: %w", host, err)
		}
	}
	return nil
}
