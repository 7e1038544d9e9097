package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/images"
)

// containerdConfig switches off what a host does not need (the Kubernetes interface, snapshotters that the machine
// lacks) and keeps containerd's folder for extras off the outer machine's /opt.
const containerdConfig = `version = 2
disabled_plugins = [
  "io.containerd.grpc.v1.cri",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[debug]
  level = "warn"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
`

// furnish makes a host's folders as a freshly installed machine has them: containerd's configuration, and the trust
// in the lab's registry.
func (l *Lab) furnish(state State, host Host) error {
	dir := l.hostDir(host.Name)
	for _, folder := range hostinit.Folders() {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "root"), 0o700); err != nil {
		return err
	}
	ca, err := os.ReadFile(l.path("registry", "ca.crt"))
	if err != nil {
		return err
	}
	trust := filepath.Join("etc", "containerd", "certs.d", state.Registry)
	hostsToml := fmt.Sprintf("server = \"https://%[1]s\"\n\n[host.\"https://%[1]s\"]\n"+
		"  capabilities = [\"pull\", \"resolve\", \"push\"]\n  ca = \"/%[2]s/ca.crt\"\n", state.Registry, trust)
	if err := os.MkdirAll(filepath.Join(dir, trust), 0o755); err != nil {
		return err
	}
	files := map[string]string{
		filepath.Join("etc", "containerd", "config.toml"): containerdConfig,
		filepath.Join(trust, "ca.crt"):                    string(ca),
		filepath.Join(trust, "hosts.toml"):                hostsToml,
	}
	for path, text := range files {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// makeShims makes the folder that is first on every host's PATH. The program knows by its name that it is systemctl.
func (l *Lab) makeShims() error {
	if err := os.MkdirAll(l.path("shims"), 0o755); err != nil {
		return err
	}
	return os.Symlink(l.program, l.path("shims", "systemctl"))
}

func (l *Lab) makeCertificates(state State) error {
	var addresses []string
	for _, prefix := range state.Range.Addresses(1) {
		addresses = append(addresses, prefix.Addr().String())
	}
	return images.MakeCertificates(l.path("registry"), append(addresses, "127.0.0.1", "::1"))
}

// startRegistry starts the registry's process and returns when it serves the test images.
func (l *Lab) startRegistry(ctx context.Context, state State) error {
	store, err := images.Ensure(ctx, filepath.Join(filepath.Dir(l.program), "images"), l.log)
	if err != nil {
		return err
	}
	order, err := json.Marshal(images.Order{Listen: state.Registry, Certificates: l.path("registry"), Images: store})
	if err != nil {
		return err
	}
	said, err := l.spawn(ctx, "registry", order, verbRegistry)
	if err != nil {
		return fmt.Errorf("start the registry: %w", err)
	}
	if said != "ok" {
		return errors.New("start the registry: " + said)
	}
	return nil
}
