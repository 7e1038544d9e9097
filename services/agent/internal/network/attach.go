package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Interfaces in another tool's namespace: that to the machine network, by which names are asked for, and that to the network. So there
// is room for one attachment.
const (
	guestMachine = "shoal-dns"
	guestNetwork = "shoal-net"
	// guestMark says that a container's namespace is another tool's, and where it was found.
	guestMark = "guest"
	// virtual is the table that the meshproxy keeps in containers' namespaces; see its package space.
	virtual = "shoal-vip"
)

// attach puts another tool's namespace on the networks. It is bound as those of our own containers are, so that all who reach those
// reach it, and left as it was by Remove. Errors: NotFound (there is no such namespace), Precondition (it is not one that may be put
// there), Unavailable while a bridge is missing.
func (k *Kernel) attach(ctx context.Context, host *netlink.Handle, w container.Wiring, bridges []netlink.Link) (container.Sandbox, error) {
	guest, err := k.find(ctx, w.Guest)
	if err != nil {
		return container.Sandbox{}, err
	}
	space, err := netns.GetFromPath(guest)
	if errors.Is(err, os.ErrNotExist) {
		return container.Sandbox{}, errs.New(errs.NotFound, "there is no network namespace %s on this machine; it must be there before it is attached", guest)
	}
	if err != nil {
		return container.Sandbox{}, errs.New(errs.Precondition, "open the network namespace %s: %w", guest, err)
	}
	defer space.Close()
	if err := k.strange(space, guest); err != nil {
		return container.Sandbox{}, err
	}
	path, mark := filepath.Join(k.spaces, w.ID), filepath.Join(k.files, w.ID, guestMark)
	err = errors.Join(place(path), os.MkdirAll(filepath.Dir(mark), 0o755))
	if err == nil {
		err = os.WriteFile(mark, []byte(guest), 0o600)
	}
	if err != nil {
		return container.Sandbox{}, fmt.Errorf("make a place for the network namespace %s: %w", guest, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", int(space)), path, "", unix.MS_BIND, ""); err != nil {
		return container.Sandbox{}, fmt.Errorf("bind the network namespace %s: %w", guest, err)
	}
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return container.Sandbox{}, fmt.Errorf("enter the network namespace %s: %w", guest, err)
	}
	defer inside.Close()
	for i, l := range w.Links {
		j := joint{id: w.ID, i: i, name: guestNetwork, guest: true}
		if l.VNI == 0 {
			j.name = guestMachine
		}
		if err := plug(host, inside, space, j, l, bridges[i]); err != nil {
			return container.Sandbox{}, fmt.Errorf("connect %s to network %q: %w", guest, l.Network, err)
		}
	}
	return container.Sandbox{NetNS: path}, nil
}

// strange says that a namespace is another tool's: not the machine's own, nor that of a container of ours, nor attached already.
func (k *Kernel) strange(space netns.NsHandle, path string) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(space), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return errs.New(errs.Precondition, "%s is no network namespace", path)
	}
	kind, err := unix.IoctlRetInt(int(space), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return errs.New(errs.Precondition, "%s is no network namespace", path)
	}
	for _, own := range []string{"/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/1/ns/net"} {
		if sameFile(own, path) {
			return errs.New(errs.Precondition, "%s is the machine's own network, which is on no container network", path)
		}
	}
	ids, err := k.Spaces()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if sameFile(filepath.Join(k.spaces, id), path) {
			return errs.New(errs.Precondition, "%s belongs to a container of shoal's, or is attached already; a container of shoal's gets a network by `service update --network-add`, and another is detached first", path)
		}
	}
	return nil
}

func sameFile(a, b string) bool {
	x, errA := os.Stat(a)
	y, errB := os.Stat(b) //nolint:gosec // a person who may run any container names it, and it is only compared
	return errA == nil && errB == nil && os.SameFile(x, y)
}

// Attached says whether a namespace that was attached is still where it was found. While it is attached it cannot end, so only its
// place tells whether its own tool has let go of it.
func (k *Kernel) Attached(id string) bool {
	path, err := os.ReadFile(filepath.Join(k.files, id, guestMark))
	return err == nil && sameFile(filepath.Join(k.spaces, id), string(path))
}

// isGuest says that a container's namespace is another tool's.
func (k *Kernel) isGuest(id string) bool {
	_, err := os.Stat(filepath.Join(k.files, id, guestMark))
	return err == nil
}

// FindBy sets how the namespace of another tool's container is found. Call it before the first Make.
func (k *Kernel) FindBy(find func(ctx context.Context, containerID string) (path string, err error)) {
	k.ask = find
}

func (k *Kernel) find(ctx context.Context, a *typesv1.AttachedNamespace) (string, error) {
	if a.GetContainer() == "" {
		return a.GetPath(), nil
	}
	if k.ask == nil {
		return "", errs.New(errs.Precondition, "this machine's runtime is not containerd, so that container %q cannot be found", a.GetContainer())
	}
	return k.ask(ctx, a.GetContainer())
}

// detach takes away what attach and the meshproxy have put into another tool's namespace.
func (k *Kernel) detach(id string) error {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("talk to the kernel: %w", err)
	}
	defer host.Close()
	for i := range 2 {
		link, err := host.LinkByName(hostName(id, i))
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err == nil {
			err = host.LinkDel(link)
		}
		if err != nil {
			return fmt.Errorf("disconnect an attached namespace: %w", err)
		}
	}
	space, err := netns.GetFromPath(filepath.Join(k.spaces, id))
	if err != nil {
		return nil //nolint:nilerr // it was never bound, and so has no tables of ours
	}
	defer space.Close()
	conn, err := nftables.New(nftables.WithNetNSFd(int(space)))
	if err != nil {
		return nil //nolint:nilerr // the place lost its mount: what was there has gone
	}
	tables, err := conn.ListTables()
	if err != nil {
		return fmt.Errorf("list the tables of an attached namespace: %w", err)
	}
	for _, t := range tables {
		if t.Name == virtual {
			conn.DelTable(t)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove our tables from an attached namespace: %w", err)
	}
	return nil
}
