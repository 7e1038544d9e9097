package tables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// Holder looks the socket up in /proc: best effort, for a message to a person.
func (k *Kernel) Holder(l mesh.Listener) string {
	for _, name := range []string{l.Network, l.Network + "6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			// proc_net_tcp(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode; 0A is LISTEN.
			f := strings.Fields(line)
			if len(f) < 10 || (l.Network == "tcp" && f[3] != "0A") {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if port, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(port) == l.Port {
				return ownerOf(f[9])
			}
		}
	}
	return ""
}

// ownerOf finds the process that has a socket open.
func ownerOf(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		comm, _ := os.ReadFile(process + "/comm")
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(comm)), filepath.Base(process))
	}
	return "a process that cannot be seen from here"
}

// Reset removes all that is ours from the machine: links (the agent's host ends too), routes, and the packet filter with
// SHOAL-USER. Sysctls stay: somebody else may rely on them by now.
func (k *Kernel) Reset(ctx context.Context) error {
	var faults []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := k.ourPolicies(family)
		faults = append(faults, err)
		for _, r := range rules {
			faults = append(faults, ignore(k.nl.RuleDel(&r), unix.ENOENT))
		}
		routes, err := k.ourRoutes(family)
		faults = append(faults, err)
		for _, r := range routes {
			faults = append(faults, ignore(k.nl.RouteDel(&r), unix.ESRCH))
		}
	}
	links, err := whole(func() ([]netlink.Link, error) { return k.nl.LinkList() })
	faults = append(faults, err)
	for _, l := range links {
		if mesh.Ours(l.Attrs().Name) {
			faults = append(faults, ignore(k.nl.LinkDel(l), unix.ENODEV))
		}
	}
	return errors.Join(append(faults, ctx.Err(), removeFilter())...)
}

func removeFilter() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	for _, t := range []*nftables.Table{newFilter().table, newTunnelSide().table} {
		if _, err := conn.ListTableOfFamily(tableName, t.Family); err == nil {
			conn.DelTable(t)
		} else if err := ignoreAbsent(err); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove the packet filter: %w", err)
	}
	return nil
}
