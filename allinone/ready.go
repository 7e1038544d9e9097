package allinone

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/allinone/internal/cluster"
	"github.com/shoalproject/shoal/allinone/internal/parts"
)

const (
	poll      = 50 * time.Millisecond
	callLimit = 10 * time.Second
)

// countdown waits for all processes to be ready.
type countdown struct {
	all chan struct{} // closed when no process is missing

	mu      sync.Mutex // guards missing
	missing []string
}

func newCountdown() *countdown {
	c := &countdown{all: make(chan struct{})}
	for _, role := range parts.Roles() {
		c.missing = append(c.missing, identity.RoleName(role))
	}
	return c
}

// done notes that a process is ready. It is false if that was known.
func (c *countdown) done(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.missing, name)
	if i < 0 {
		return false
	}
	if c.missing = slices.Delete(c.missing, i, i+1); len(c.missing) == 0 {
		close(c.all)
	}
	return true
}

// wait blocks until all are ready, or names in its error those that are not.
func (c *countdown) wait(ctx context.Context) error {
	select {
	case <-c.all:
		return nil
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errs.New(errs.Unavailable, "not ready: %s; --log-level info shows what they wait for", strings.Join(c.missing, ", "))
}

// ask waits as a person would until this machine is READY, through the cluster's own gateway, and returns the join token of
// workers.
func (d *dev) ask(ctx context.Context, made cluster.Cluster) (token string, err error) {
	keeper, err := identity.Load(d.env, cluster.Operator(d.place))
	if err != nil {
		return "", fmt.Errorf("the operator's identity: %w", err)
	}
	conn, err := rpc.DialAddress(d.env, keeper, d.place.At(authzv1.Role_ROLE_GATEWAY), authzv1.Role_ROLE_GATEWAY)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	nodes, tokens := controlv1.NewNodeServiceClient(conn), cav1.NewTokenServiceClient(conn)
	return token, until(ctx, func(ctx context.Context) error {
		got, err := nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: made.Machine})
		if err != nil {
			return err
		}
		if s := got.GetNode().GetNode().GetStatus(); s.GetState() != typesv1.NodeState_NODE_STATE_READY {
			return errs.New(errs.Unavailable, "this machine is not ready yet: %s", s.GetMessage())
		}
		answer, err := tokens.GetJoinToken(ctx, &cav1.GetJoinTokenRequest{Role: typesv1.NodeRole_NODE_ROLE_WORKER})
		token = answer.GetToken()
		return err
	})
}

// until tries again and again; the last error is the reason when ctx ends.
func until(ctx context.Context, try func(ctx context.Context) error) error {
	for {
		one, cancel := context.WithTimeout(ctx, callLimit)
		err := try(one)
		cancel()
		if err == nil || run.Sleep(ctx, poll) != nil {
			return err
		}
	}
}

// addresses are those of the machine's interfaces.
func addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, prefix.Addr().Unmap())
		}
	}
	return out, nil
}

// links are the names of the machine's interfaces.
func links() ([]string, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, l := range list {
		out = append(out, l.Name)
	}
	return out, nil
}
