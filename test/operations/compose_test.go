package operations

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/dockerd"
	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/pages"
)

// engines are machines with a Docker Engine, by name.
type engines map[string]*dockerd.Daemon

func (e engines) Run(ctx context.Context, host, script string) (string, error) {
	d, ok := e[host]
	if !ok {
		return "", fmt.Errorf("there is no machine %q", host)
	}
	return d.Run(ctx, host, script)
}

// The page about compose is followed on two machines with a Docker Engine each, and the files and images on them that it asks
// for.
func TestComposePage(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "shoal-pages-") //nolint:usetesting // overlays need a real file system, sockets a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	lab, err := harness.Up(t.Context(), harness.Options{
		Dir: filepath.Join(dir, "lab"), Managers: 2, NoInit: true, Program: os.Getenv("SHOAL_LAB_PROGRAM"),
		Log: slog.New(slog.NewTextHandler(testLog{t}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(); err != nil {
			t.Errorf("take the machines down: %v", err)
		}
	})
	registry, err := lab.Registry()
	if err != nil {
		t.Fatal(err)
	}
	on := engines{}
	vars := map[string]string{"FOLDER": "/root/shoal", "VERSION": imagesVersion(t), "IMAGE": registry + "/micro:1.0.0"}
	for _, name := range []string{"m1", "m2"} {
		if on[name], err = dockerd.On(t.Context(), lab, name); err != nil {
			t.Fatal(err)
		}
		if vars[strings.ToUpper(name)], err = lab.Address(name); err != nil {
			t.Fatal(err)
		}
		furnish(t, on, name)
	}
	page, err := pages.Load(filepath.Join("../../docs/operations", "first-cluster-compose.md"))
	if err != nil {
		t.Fatal(err)
	}
	if err := page.Run(t.Context(), on, pages.Options{Vars: vars, Log: t.Logf, Limit: 3 * time.Minute}); err != nil {
		said, _ := on["m1"].Run(t.Context(), "m1", "docker ps -a; for c in $(docker ps -aq); do docker logs --tail 5 $c 2>&1; done")
		t.Fatalf("%v\n%s", err, said)
	}
}

// imagesVersion is the version in the names of the archives in dist/images, which must be one.
func imagesVersion(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob("../../dist/images/shoal-store_*_" + runtime.GOARCH + ".tar")
	if err != nil || len(names) != 1 {
		t.Fatalf("images of one version are wanted in dist/images, there are %v (%v); make images", names, err)
	}
	version := strings.TrimPrefix(filepath.Base(names[0]), "shoal-store_")
	return strings.TrimSuffix(version, "_"+runtime.GOARCH+".tar")
}

// furnish gives a machine the folder that the page speaks of, and docker compose.
func furnish(t *testing.T, on engines, name string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf(`set -e
mkdir -p /root/shoal /root/.docker/cli-plugins
ln -s %[1]s/.cache/docker-compose /root/.docker/cli-plugins/docker-compose
cp %[1]s/deploy/compose/*.yaml %[1]s/deploy/compose/example.env /root/shoal/
ln -s %[1]s/dist/images/shoal*_%[2]s.tar /root/shoal/
docker compose version`, root, runtime.GOARCH)
	said, err := on.Run(t.Context(), name, script)
	if err != nil {
		t.Fatalf("furnish %s: %v\n%s", name, err, said)
	}
	t.Logf("%s: %s", name, said)
}
