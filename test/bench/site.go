package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"

	tasksv1 "github.com/containerd/containerd/api/services/tasks/v1"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/shoalproject/shoal/test/harness"
	"github.com/shoalproject/shoal/test/harness/images"
)

const containerdSocket = "/run/containerd/containerd.sock" // of a host

// site is a laboratory and what is measured on it without asking the cluster: what its containerds really run.
type site struct {
	*harness.Lab

	hosts     []string
	addresses map[string]string // by host
	folders   map[string]string // by host: its folder on this machine
	image     string
	clients   map[string]*containerd.Client // by host
}

// open makes a laboratory. The caller closes the site also when it comes with an error.
func open(ctx context.Context, opts harness.Options, log *slog.Logger) (*site, error) {
	opts.Log = log
	lab, err := harness.Up(ctx, opts)
	if lab == nil {
		return nil, err
	}
	s := &site{Lab: lab, addresses: map[string]string{}, folders: map[string]string{}, clients: map[string]*containerd.Client{}}
	if err != nil {
		return s, err
	}
	return s, s.look(ctx)
}

func (s *site) look(ctx context.Context) error {
	registry, err := s.Registry()
	if err != nil {
		return err
	}
	s.image = registry + "/micro:1.0.0"
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	for _, h := range status.Hosts {
		s.hosts = append(s.hosts, h.Name)
		s.addresses[h.Name], s.folders[h.Name] = h.Addresses[0], h.Dir
		s.clients[h.Name], err = containerd.New(containerdSocket, containerd.WithDialOpts([]grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				return s.Dial(ctx, h.Name, containerdSocket)
			}),
		}))
		if err != nil {
			return fmt.Errorf("reach the containerd of %s: %w", h.Name, err)
		}
	}
	return nil
}

// close takes the laboratory down, with all that runs in it.
func (s *site) close() error {
	for _, c := range s.clients {
		c.Close()
	}
	return s.Down()
}

// path is where a host's file is on this machine.
func (s *site) path(host, name string) string { return filepath.Join(s.folders[host], name) }

// made counts the containers in a namespace of some hosts' containerds.
func (s *site) made(ctx context.Context, namespace string, hosts []string) (int, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	sum := 0
	for _, h := range hosts {
		found, err := s.clients[h].ContainerService().List(ctx)
		if err != nil {
			return 0, fmt.Errorf("containers of %s: %w", h, err)
		}
		sum += len(found)
	}
	return sum, nil
}

// kill ends a container's process behind the cluster's back.
func (s *site) kill(ctx context.Context, namespace, host, container string) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	_, err := s.clients[host].TaskService().Kill(ctx, &tasksv1.KillRequest{ContainerID: container, Signal: uint32(unix.SIGKILL)})
	if err != nil {
		return fmt.Errorf("kill container %s on %s: %w", container, host, err)
	}
	return nil
}

// cut ends a host as a power cut does: without a last word. Its cable goes first, because a kernel that goes on living, as
// this one does, would close the connections of the processes that die, and so tell their peers.
func (s *site) cut(ctx context.Context, host string) error {
	return errors.Join(s.Unplug(ctx, host), s.PowerOff(ctx, host))
}

// others are all hosts but one.
func (s *site) others(host string) []string {
	var rest []string
	for _, h := range s.hosts {
		if h != host {
			rest = append(rest, h)
		}
	}
	return rest
}

func (s *site) addressesOf(hosts []string) []string {
	var list []string
	for _, h := range hosts {
		list = append(list, s.addresses[h])
	}
	return list
}

// registryClient trusts the laboratory's registry.
func (s *site) registryClient() (*http.Client, error) {
	pool, err := images.TrustPool(filepath.Join(s.Dir(), "registry"))
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}, nil
}
