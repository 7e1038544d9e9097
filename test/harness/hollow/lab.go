package hollow

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/shoalproject/shoal/test/harness"
)

const (
	manager  = "m1"
	joinPort = "2377"
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
	return New(Options{Nodes: nodes, Token: strings.TrimSpace(token), Remotes: []string{net.JoinHostPort(address, joinPort)}, Log: log})
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
