package hollow

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/shoalproject/shoal/test/harness"
)

const (
	// sources is how many addresses the machines come from, and firstSource the last byte of the first: behind those of hosts.
	sources     = 64
	firstSource = 150
	manager     = "m1"
	joinPort    = "2377"
	// joinRate is what the laboratory's CA allows one address: all hollow machines come from the same.
	joinRate = 10_000
)

// InLab makes a fleet for a laboratory's cluster. The CA of its first manager is told that many machines come from one address.
func InLab(ctx context.Context, lab *harness.Lab, nodes int, log *slog.Logger) (*Fleet, error) {
	if err := allowJoins(ctx, lab); err != nil {
		return nil, err
	}
	token, stderr, code, err := lab.Exec(ctx, manager, "shoal", "join-token", "worker", "-q")
	if err != nil || code != 0 {
		return nil, fmt.Errorf("ask for the workers' token: exit code %d: %s: %w", code, stderr, err)
	}
	address, err := lab.Address(manager)
	if err != nil {
		return nil, err
	}
	sources, err := addSources(ctx, address)
	if err != nil {
		return nil, err
	}
	return New(Options{Nodes: nodes, Sources: sources, Token: strings.TrimSpace(token), Remotes: []string{net.JoinHostPort(address, joinPort)}, Log: log})
}

// allowJoins changes the config of the CA and starts it anew.
func allowJoins(ctx context.Context, lab *harness.Lab) error {
	script := fmt.Sprintf(`f=/etc/shoal/ca.yaml; sed -i /^join_rate:/d $f && echo join_rate: %d >>$f`, joinRate)
	if _, stderr, code, err := lab.Exec(ctx, manager, "sh", "-c", script); err != nil || code != 0 {
		return fmt.Errorf("let the CA take many joins: exit code %d: %s: %w", code, stderr, err)
	}
	if err := lab.Stop(ctx, manager, "ca"); err != nil {
		return err
	}
	return lab.Start(ctx, manager, "ca")
}

// addSources gives this machine more addresses in the laboratory's network. They go with the laboratory's interface.
func addSources(ctx context.Context, host string) (out []netip.Addr, err error) {
	in, err := netip.ParseAddr(host)
	if err != nil || !in.Is4() {
		return nil, fmt.Errorf("address %q of the manager: want one of IPv4: %w", host, err)
	}
	route, err := exec.CommandContext(ctx, "ip", "-o", "route", "get", host).Output()
	if err != nil {
		return nil, fmt.Errorf("ask for the way to %s: %w", host, err)
	}
	_, after, found := strings.Cut(string(route), " dev ")
	fields := strings.Fields(after)
	if !found || len(fields) == 0 {
		return nil, fmt.Errorf("no interface leads to %s: %s", host, route)
	}
	for i := range sources {
		b := in.As4()
		b[3] = byte(firstSource + i)
		a := netip.AddrFrom4(b)
		if said, err := exec.CommandContext(ctx, "ip", "addr", "replace", a.String()+"/32", "dev", fields[0]).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("give %s the address %s: %w: %s", fields[0], a, err, said)
		}
		out = append(out, a)
	}
	return out, nil
}
