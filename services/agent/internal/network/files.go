package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// writeFiles writes what is mounted over the image's /etc/hosts, /etc/resolv.conf and /etc/hostname.
func (k *Kernel) writeFiles(w container.Wiring) (container.Sandbox, error) {
	dir := filepath.Join(k.files, w.ID)
	box := container.Sandbox{
		Hosts: filepath.Join(dir, "hosts"), Resolv: filepath.Join(dir, "resolv.conf"), Hostname: filepath.Join(dir, "hostname"),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return container.Sandbox{}, fmt.Errorf("make the container's folder: %w", err)
	}
	names, resolver := hosts(w), k.resolver(w)
	if w.Host {
		var err error
		if names, resolver, err = k.machineFiles(w); err != nil {
			return container.Sandbox{}, err
		}
	}
	for path, text := range map[string]string{
		box.Hosts: names, box.Resolv: resolver, box.Hostname: w.Hostname + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // containers read it as any user
			return container.Sandbox{}, fmt.Errorf("write a container's file: %w", err)
		}
		if owner := int(w.IDs.First); owner != 0 { // else whoever may write to it in the container could not
			if err := os.Chown(path, owner, owner); err != nil {
				return container.Sandbox{}, fmt.Errorf("give a container's file to its root: %w", err)
			}
		}
	}
	return box, nil
}

// machineFiles are the machine's own, for a container that shares its network, with the container's lines. What the container
// writes into them stays its own.
func (k *Kernel) machineFiles(w container.Wiring) (names, resolver string, err error) {
	var all [2]string
	for i, path := range []string{k.hosts, k.resolv} {
		raw, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", "", fmt.Errorf("read what the container shares: %w", err)
		}
		all[i] = string(raw)
	}
	for _, line := range w.Hosts {
		address, name, _ := strings.Cut(line, " ")
		if address == hostGateway {
			address = "127.0.0.1"
		}
		all[0] = strings.TrimSuffix(all[0], "\n") + "\n" + address + "\t" + name + "\n"
	}
	return all[0], all[1], nil
}

// hosts names the container itself by its address on the last network of its own, else on the machine network: that is
// what its neighbours know it by.
func hosts(w container.Wiring) string {
	var b strings.Builder
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	own := 0
	if len(w.Links) > 1 {
		own = 1
	}
	for i, l := range w.Links {
		for _, a := range l.Addresses {
			if i == own {
				fmt.Fprintf(&b, "%s\t%s\n", a.Addr(), w.Hostname)
			}
		}
	}
	for _, line := range w.Hosts {
		address, names, _ := strings.Cut(line, " ")
		if address != hostGateway {
			fmt.Fprintf(&b, "%s\t%s\n", address, names)
			continue
		}
		for _, l := range w.Links[:min(1, len(w.Links))] {
			for _, gateway := range l.Gateways {
				fmt.Fprintf(&b, "%s\t%s\n", gateway, names)
			}
		}
	}
	return b.String()
}

// hostGateway stands for the machine in a line of /etc/hosts: the containers' gateway on the machine network is its own
// address there.
const hostGateway = "host-gateway"

// Where the meshproxy of every machine answers its containers; see services/meshproxy/internal/ends/nameserver.go.
const (
	nameServer4 = "169.254.53.53"
	nameServer6 = "fd73:686f:616c::53"
)

// resolver is the container's resolv.conf: the machine's meshproxy, which knows the cluster's names and asks the machine's
// name servers for all else. It is never rewritten: what changes is what the meshproxy answers. Search domains and options
// are the container's own, else the machine's. Without dots a name is asked for as it is first, or a search domain could hide a service; and a
// question is asked again for longer than a meshproxy takes to be replaced.
func (k *Kernel) resolver(w container.Wiring) string {
	server := nameServer4
	if len(w.Links) > 0 && !slices.ContainsFunc(w.Links[0].Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		server = nameServer6
	}
	search, options := k.machineResolver()
	if own := w.DNS.GetSearch(); len(own) > 0 {
		search = slices.DeleteFunc(slices.Clone(own), func(s string) bool { return s == "." }) // as docker: "." alone is none
	}
	for _, o := range w.DNS.GetOptions() { // the container's own over the machine's of the same name
		name, _, _ := strings.Cut(o, ":")
		options = slices.DeleteFunc(options, func(have string) bool { return have == name || strings.HasPrefix(have, name+":") })
		options = append(options, o)
	}
	for _, o := range []string{"ndots:0", "timeout:2", "attempts:5"} {
		name, _, _ := strings.Cut(o, ":")
		if !slices.ContainsFunc(options, func(have string) bool { return strings.HasPrefix(have, name+":") }) {
			options = append(options, o)
		}
	}
	text := "nameserver " + server + "\n"
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	return text + "options " + strings.Join(options, " ") + "\n"
}

// machineResolver reads resolv.conf(5). The last search line counts, options add up.
func (k *Kernel) machineResolver() (search, options []string) {
	data, err := os.ReadFile(k.resolv)
	if err != nil {
		return nil, nil
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "search" || f[0] == "domain":
			search = f[1:]
		case f[0] == "options":
			options = append(options, f[1:]...)
		}
	}
	return search, options
}
