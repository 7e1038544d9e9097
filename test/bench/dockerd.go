package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/shoalproject/shoal/test/bench/poll"
)

// installDocker installs Debian's docker.io where it is missing; the package stays, as those of `make deps` do.
func installDocker(ctx context.Context, log *slog.Logger) error {
	if _, err := exec.LookPath("dockerd"); err == nil {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("dockerd is missing, and there is no apt-get to install it")
	}
	log.Info("installing the Debian package docker.io")
	// Runlevel 1 keeps invoke-rc.d from starting a daemon here: ours run on the laboratory's hosts alone.
	for _, args := range [][]string{{"update", "-qq"}, {"install", "-y", "-qq", "--no-install-recommends", "docker.io"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLines(out))
		}
	}
	return nil
}

func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// archive takes the test image from the laboratory's registry and writes it as `docker load` reads it.
func (o *swarm) archive(dir, lab string) (string, error) {
	trusting, err := o.site.registryClient()
	if err != nil {
		return "", err
	}
	ref, err := name.NewTag(o.site.image)
	if err != nil {
		return "", err
	}
	img, err := remote.Image(ref, remote.WithTransport(trusting.Transport))
	if err != nil {
		return "", fmt.Errorf("take %s from the registry: %w", ref, err)
	}
	path := filepath.Join(dir, lab+".tar")
	return path, tarball.WriteToFile(path, ref, img)
}

// boot starts dockerd on a host: on the host's own containerd, with the host's own data folder. The image is loaded
// beforehand and taken from there (DOCKER_SERVICE_PREFER_OFFLINE_IMAGE), so that no task waits for a registry.
func (o *swarm) boot(ctx context.Context, host string) error {
	const start = "mkdir -p /var/log && DOCKER_SERVICE_PREFER_OFFLINE_IMAGE=1 setsid dockerd" +
		" --containerd /run/containerd/containerd.sock --data-root /var/lib/docker --exec-root /run/docker" +
		" --storage-driver overlay2 >/var/log/dockerd.log 2>&1 </dev/null &"
	if err := o.typed(ctx, host, "sh", "-c", start); err != nil {
		return err
	}
	_, err := poll.Until(ctx, "dockerd on "+host, bootLimit, func(ctx context.Context) string {
		if _, err := o.docker(ctx, host, "version"); err != nil {
			return err.Error() + "; its log ends: " + o.logOf(host)
		}
		return ""
	})
	if err != nil {
		return err
	}
	_, err = o.docker(ctx, host, "load", "--quiet", "--input", o.tar)
	return err
}

// refresh starts dockerd again on a host that was powered on: it is no unit of the host.
func (o *swarm) refresh(ctx context.Context, host string) error { return o.boot(ctx, host) }

func (o *swarm) typed(ctx context.Context, host string, args ...string) error {
	out, said, code, err := o.site.Exec(ctx, host, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s%s", code, out, said)
	}
	if err != nil {
		return fmt.Errorf("%s on %s: %w", args[0], host, err)
	}
	return nil
}

func (o *swarm) logOf(host string) string {
	text, err := os.ReadFile(o.site.path(host, "var/log/dockerd.log"))
	if err != nil {
		return err.Error()
	}
	return lastLines(text)
}

// version names what was measured.
func (o *swarm) version(ctx context.Context) string {
	v, err := o.docker(ctx, "m1", "version", "--format", "dockerd {{.Server.Version}}, {{range .Server.Components}}{{if eq .Name \"containerd\"}}containerd {{.Version}}{{end}}{{end}}")
	if err != nil {
		return "Docker Swarm: " + err.Error()
	}
	return "Docker Swarm: " + v
}
