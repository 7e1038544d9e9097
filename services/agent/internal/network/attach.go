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
// there, or has routes of its own to what is there), Unavailable while a bridge is missing.
func (k *Kernel) attach(ctx context.Context, host *netlink.Handle, w container.Wiring, bridges []netlink.Link) (container.Sandbox, error) {
	guest, space, err := k.open(ctx, w.Guest)
	if err != nil {
		return container.Sandbox{}, err
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
	if err := roomFor(inside, w.Links); err != nil {
		return container.Sandbox{}, err
	}
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

// Attached says whether a namespace that was attached is still where it was found. While it is attached it cannot end, so only its
// place tells whether its own tool has let go of it.
func (k *Kernel) Attached(id string) bool {
	path, err := os.ReadFile(filepath.Join(k.files, id, guestMark))
	if err != nil {
		return false
	}
	x, errX := os.Stat(filepath.Join(k.spaces, id))
	y, errY := os.Stat(string(path)) //nolint:gosec // a person who may run any container names it, and it is only compared
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// Foreign says that a container's namespace is another tool's.
func (k *Kernel) Foreign(id string) bool {
	_, err := os.Stat(filepath.Join(k.files, id, guestMark))
	return err == nil
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
