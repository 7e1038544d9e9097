package harness

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

const joinPort = 2377

// formCluster types what a person would type: init on the first manager, join on the others.
func (l *Lab) formCluster(ctx context.Context) error {
	start := time.Now()
	state, err := l.load()
	if err != nil {
		return err
	}
	first := state.Hosts[0]
	if _, err := l.must(ctx, first.Name, "shoal", "init", "--advertise-addr", first.IPv4.String()); err != nil {
		return err
	}
	// Managers one after another: each join changes the voters, and the next one needs the quorum that it makes.
	var workers []Host
	for _, host := range state.Hosts[1:] {
		if host.Role == Worker {
			workers = append(workers, host)
			continue
		}
		if err := l.join(ctx, first, host); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, host := range workers {
		group.Go(func() error { return l.join(ctx, first, host) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	l.log.Info("cluster is up", "hosts", len(state.Hosts), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func (l *Lab) join(ctx context.Context, first, host Host) error {
	token, err := l.must(ctx, first.Name, "shoal", "join-token", host.Role, "-q")
	if err != nil {
		return err
	}
	remote := fmt.Sprintf("%s:%d", first.IPv4, joinPort)
	_, err = l.must(ctx, host.Name, "shoal", "join", "--token", strings.TrimSpace(token), remote)
	return err
}

// quote writes a command line as a person would type it, without the secret of a join token.
func quote(args []string) string {
	return regexp.MustCompile(`(SHOAL-1-[0-9a-z]+)-[0-9a-z]+`).ReplaceAllString(strings.Join(args, " "), "$1-…")
}
