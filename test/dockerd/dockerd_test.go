package dockerd_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/dockerd"
)

// A private dockerd runs images of the laboratory's registry, survives a restart and a power cut, and leaves nothing on
// the machine outside.
func TestDaemon(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "shoal-dockerd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d, err := dockerd.Start(t.Context(), filepath.Join(dir, "lab"))
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = d.Close() // the test has failed already
		}
	})
	image, err := d.Pull(t.Context(), "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	must(t, d, "run", "-d", "--name", "micro", "--restart", "always", image)
	answers(t, d)
	if err := d.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers(t, d)
	if err := d.PowerCycle(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers(t, d)
	closed = true
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the folder: %v %v", left, err)
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(text), dir) {
		t.Errorf("mounts of %s are left: %v\n%s", dir, err, text)
	}
}

func must(t *testing.T, d *dockerd.Daemon, args ...string) string {
	t.Helper()
	out, err := d.Docker(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// answers asks the container by its address on dockerd's own network, which only the host can reach.
func answers(t *testing.T, d *dockerd.Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: d.Dial}}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		address := must(t, d, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "micro")
		said, err := get(ctx, client, "http://"+net.JoinHostPort(address, "8000")+"/")
		if err == nil && strings.Contains(said, "hostname=") {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the container does not answer on %s: %q, %v", address, said, err)
		case <-tick.C:
		}
	}
}

func get(ctx context.Context, client http.Client, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}
