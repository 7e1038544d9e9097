package main

import (
	"context"
	"fmt"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/run"
)

const (
	bareNamespace = "bench"
	snapshotter   = "overlayfs"
	// bareParallel is how many containers are made at once on a host, as many as an agent makes by default.
	bareParallel = 8
)

// bare makes containers on a site's containerds and does nothing else: no cluster, no network. It is the floor under
// every orchestrator on this machine. What a container is made of is the same as an agent's: image, snapshotter, runtime,
// log file, spec; but its network namespace is runc's own, empty, without addresses, and nobody watches it.
type bare struct {
	site   *site
	images map[string]containerd.Image // by host
}

// newBare pulls the image into a namespace of its own on each host.
func newBare(ctx context.Context, s *site) (*bare, error) {
	b := &bare{site: s, images: map[string]containerd.Image{}}
	ctx = namespaces.WithNamespace(ctx, bareNamespace)
	trusting, err := s.registryClient()
	if err != nil {
		return nil, err
	}
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithClient(trusting))})
	for _, h := range s.hosts {
		img, err := s.clients[h].Pull(ctx, s.image, containerd.WithPullUnpack, containerd.WithPullSnapshotter(snapshotter), containerd.WithResolver(resolver))
		if err != nil {
			return nil, fmt.Errorf("pull for the bare client on %s: %w", h, err)
		}
		b.images[h] = img
	}
	return b, nil
}

// scale makes the containers from have to want, or removes those above want, spread evenly over the hosts, and returns
// how long it took until each process had started, or was gone with its file system.
func (b *bare) scale(ctx context.Context, have, want int) (time.Duration, error) {
	f, first, last := b.start, have, want
	if want < have {
		f, first, last = b.end, want, have
	}
	byHost := map[string][]int{}
	for i := first; i < last; i++ {
		h := b.site.hosts[i%len(b.site.hosts)]
		byHost[h] = append(byHost[h], i)
	}
	began := time.Now()
	err := run.Each(namespaces.WithNamespace(ctx, bareNamespace), 0, b.site.hosts, func(ctx context.Context, host string) error {
		return run.Each(ctx, bareParallel, byHost[host], func(ctx context.Context, i int) error { return f(ctx, host, bareID(i)) })
	})
	return time.Since(began), err
}

func bareID(i int) string { return fmt.Sprintf("bench%d", i) }

func (b *bare) start(ctx context.Context, host, id string) error {
	img := b.images[host]
	c, err := b.site.clients[host].NewContainer(ctx, id, containerd.WithImage(img), containerd.WithSnapshotter(snapshotter),
		containerd.WithNewSnapshot(id, img), containerd.WithRuntime("io.containerd.runc.v2", nil),
		containerd.WithNewSpec(
			oci.WithHostname(id), oci.WithCgroup("/bench/"+id), oci.WithoutRunMount, oci.WithDefaultUnixDevices, oci.WithNewPrivileges,
			likeAgent, seccompDefault,
		))
	if err != nil {
		return fmt.Errorf("make container %s on %s: %w", id, host, err)
	}
	t, err := c.NewTask(ctx, cio.LogFile("/var/log/"+id+".log"))
	if err != nil {
		return fmt.Errorf("make the process of %s on %s: %w", id, host, err)
	}
	return t.Start(ctx)
}

// likeAgent writes what an agent's spec for this image has.
func likeAgent(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	const soft, hard = 1024, 20000
	s.Version = "1.0.2"
	s.Process.Args, s.Process.Env, s.Process.Cwd = []string{"/micro"}, []string{"PATH=/", "HOSTNAME=" + s.Hostname}, "/"
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: soft, Hard: hard}}
	s.Mounts = append(s.Mounts, specs.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"},
	})
	for _, file := range []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname"} {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: file, Type: "bind", Source: file, Options: []string{"rbind", "rprivate", "rw"}})
	}
	s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
	return nil
}

func seccompDefault(_ context.Context, _ oci.Client, _ *containers.Container, s *oci.Spec) error {
	s.Linux.Seccomp = seccomp.DefaultProfile(s)
	return nil
}

// end stops a container as an agent does, by SIGTERM, and removes it.
func (b *bare) end(ctx context.Context, host, id string) error {
	c, err := b.site.clients[host].LoadContainer(ctx, id)
	if err != nil {
		return err
	}
	t, err := c.Task(ctx, nil)
	if err != nil {
		return err
	}
	ended, err := t.Wait(ctx)
	if err != nil {
		return err
	}
	if err := t.Kill(ctx, unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := t.Delete(ctx); err != nil {
		return err
	}
	return c.Delete(ctx, containerd.WithSnapshotCleanup)
}
