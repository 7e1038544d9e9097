package network

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
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
	for path, text := range map[string]string{
		box.Hosts: hosts(w), box.Resolv: k.resolvers(), box.Hostname: w.Hostname + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // containers read it as any user
			return container.Sandbox{}, fmt.Errorf("write a container's file: %w", err)
		}
	}
	return box, nil
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
	return b.String()
}

// resolvers are the machine's. One on a loopback address answers only on the machine itself, so systemd's list of the
// real ones is taken instead. If there is none the file says so: better than a stranger's resolver that nobody chose.
func (k *Kernel) resolvers() string {
	var options string
	for i, path := range k.resolv {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		servers, rest := readResolv(string(data))
		if i == 0 {
			options = rest
		}
		if servers != "" {
			return servers + options
		}
	}
	return "# this machine has no resolver that a container can reach\n" + options
}

func readResolv(text string) (servers, rest string) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case fields[0] == "nameserver":
			a, err := netip.ParseAddr(fields[1])
			if err == nil && !a.IsLoopback() && a.Zone() == "" {
				servers += "nameserver " + fields[1] + "\n"
			}
		case fields[0] == "search" || fields[0] == "options" || fields[0] == "domain":
			rest += strings.Join(fields, " ") + "\n"
		}
	}
	return servers, rest
}
