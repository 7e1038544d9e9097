// Package systemd makes machines on which systemd is process 1 and apt installs packages: containers of Debian, on a
// private dockerd (test/dockerd), with a handful of named capabilities and none that the machine outside may lack. Tests
// install shoal's own packages there and use it as a person would.
//
// The machines' image is made once by debootstrap and kept (image.go). A machine's apt knows two flat repositories that
// are folders of the machine outside: Debian's packages that ours depend on, and ours. Machines is safe for concurrent
// use on different machines; Close removes everything.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalproject/shoal/test/dockerd"
)

// Outside is the name by which Run runs on the machines' host, from which their addresses are reached.
const Outside = "outside"

// subnet is the machines' network on their host; the machine with index i has the address with first+i.
const (
	subnet  = "10.77.0.0/24"
	network = "machines"
	first   = 11
)

// Options say what Up makes.
type Options struct {
	Dir      string       // a folder that does not exist yet, on ext4, with a short name
	Names    []string     // host names, such as m1, w1, w2
	NoIPv6   []string     // those of them on which IPv6 is switched off
	Packages string       // the folder with our .deb files, as `make packages` makes it
	Cache    string       // where the image is kept
	Log      *slog.Logger // progress; silent if nil
}

// Machines are machines with systemd on a dockerd of their own.
type Machines struct {
	daemon     *dockerd.Daemon
	names      []string
	repository string // the folder behind /srv/shoal
	debian     string // the folder behind /srv/debian
	log        *slog.Logger
}

// Up makes the machines and boots them; shoal is not installed. When it fails it takes back what it made.
func Up(ctx context.Context, opts Options) (*Machines, error) {
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	image, err := ensureImage(ctx, opts.Cache, log)
	if err != nil {
		return nil, err
	}
	if err := index(ctx, image.debs); err != nil {
		return nil, err
	}
	daemon, err := dockerd.Start(ctx, opts.Dir)
	if err != nil {
		return nil, err
	}
	m := &Machines{
		daemon: daemon, names: slices.Clone(opts.Names), debian: image.debs,
		repository: filepath.Join(daemon.Lab().Dir(), "repository"), log: log,
	}
	if err := m.furnish(ctx, image, opts); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machines) furnish(ctx context.Context, image base, opts Options) error {
	start := time.Now()
	if err := os.MkdirAll(m.repository, 0o755); err != nil {
		return err
	}
	if err := m.publish(ctx, opts.Packages); err != nil {
		return err
	}
	tar, err := os.Open(image.tar)
	if err != nil {
		return err
	}
	defer tar.Close()
	if _, err := m.daemon.Pipe(ctx, tar, "import", "--change", `CMD ["/sbin/init"]`, "--change", "ENV container=docker",
		"-", imageName); err != nil {
		return err
	}
	if _, err := m.daemon.Docker(ctx, "network", "create", "--subnet", subnet, network); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range m.names {
		group.Go(func() error {
			if err := m.create(ctx, name, !slices.Contains(opts.NoIPv6, name)); err != nil {
				return err
			}
			return m.PowerOn(ctx, name)
		})
	}
	err = group.Wait()
	m.log.Info("machines are up", "machines", len(m.names), "took", time.Since(start).Round(time.Millisecond))
	return err
}

// Names are the machines' host names.
func (m *Machines) Names() []string { return slices.Clone(m.names) }

// Address is a machine's IPv4 address.
func (m *Machines) Address(name string) string {
	return fmt.Sprintf("10.77.0.%d", first+slices.Index(m.names, name))
}

// Daemon is the dockerd that the machines are containers of.
func (m *Machines) Daemon() *dockerd.Daemon { return m.daemon }

// Image names one of the laboratory's test images, as every machine can pull it.
func (m *Machines) Image(tag string) (string, error) {
	registry, err := m.daemon.Lab().Registry()
	return registry + "/micro:" + tag, err
}

// Dial connects to a machine's address from outside the machines.
func (m *Machines) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return m.daemon.Dial(ctx, network, address)
}

// Close removes the machines and all that belongs to them.
func (m *Machines) Close() error { return m.daemon.Close() }
