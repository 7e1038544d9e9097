// Package client talks to a cluster for a person: it opens a context's identity, dials its gateways, and says in a person's
// words why nobody answers.
//
// It owns no rule of the cluster. Everything goes to the gateway, except the renewal of the person's own certificate, which
// goes to a CA. A Client is safe for concurrent use and ends with Close.
package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"strings"
	"time"

	"google.golang.org/grpc"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	schedulerv1 "github.com/shoalproject/shoal/proto/shoal/scheduler/v1"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

// GatewayPort is where gateways listen.
const GatewayPort = "2384"

// callLimit bounds one call: longer than a store needs to choose a leader.
const callLimit = 15 * time.Second

// Client has the services that a gateway offers.
type Client struct {
	Services controlv1.ServiceServiceClient
	Tasks    controlv1.TaskServiceClient
	Nodes    controlv1.NodeServiceClient
	Networks controlv1.NetworkServiceClient
	Cluster  controlv1.ClusterServiceClient
	Members  controlv1.MemberServiceClient
	Secrets  controlv1.SecretServiceClient
	Configs  controlv1.ConfigServiceClient
	Logins   controlv1.RegistryServiceClient
	Tokens   cav1.TokenServiceClient
	Preview  controlv1.PreviewServiceClient
	Explain  schedulerv1.ExplainServiceClient
	Plan     schedulerv1.PlanServiceClient
	Logs     logsv1.LogServiceClient
	Stats    logsv1.StatsServiceClient
	Read     logsv1.TaskReadServiceClient
	Inside   logsv1.ExecServiceClient
	Volumes  logsv1.VolumeServiceClient
	Network  logsv1.NodeNetworkServiceClient

	conn *grpc.ClientConn
}

// Open makes a client of a context's gateways with the identity in dir. It dials with the first call.
func Open(env run.Env, c contexts.Context, dir string) (*Client, error) {
	keep, err := load(env, c, dir)
	if err != nil {
		return nil, err
	}
	gateways, err := Addresses(c.Gateways)
	if err != nil {
		return nil, err
	}
	// Several gateways are used in turn, so that one may be down; a single one is asked once, so that its absence is told at once.
	conn, err := rpc.DialForPeople(env, keep, authzv1.Role_ROLE_GATEWAY, gateways...)
	if err != nil {
		return nil, err
	}
	calls := &calls{conn: conn, where: strings.Join(gateways, ", ")}
	return &Client{
		Services: controlv1.NewServiceServiceClient(calls), Tasks: controlv1.NewTaskServiceClient(calls),
		Nodes: controlv1.NewNodeServiceClient(calls), Networks: controlv1.NewNetworkServiceClient(calls),
		Cluster: controlv1.NewClusterServiceClient(calls), Members: controlv1.NewMemberServiceClient(calls),
		Secrets: controlv1.NewSecretServiceClient(calls), Configs: controlv1.NewConfigServiceClient(calls), Logins: controlv1.NewRegistryServiceClient(calls),
		Tokens: cav1.NewTokenServiceClient(calls), Preview: controlv1.NewPreviewServiceClient(calls),
		Explain: schedulerv1.NewExplainServiceClient(calls), Plan: schedulerv1.NewPlanServiceClient(calls),
		Logs: logsv1.NewLogServiceClient(calls), Stats: logsv1.NewStatsServiceClient(calls),
		Read: logsv1.NewTaskReadServiceClient(calls), Inside: logsv1.NewExecServiceClient(calls),
		Volumes: logsv1.NewVolumeServiceClient(calls), Network: logsv1.NewNodeNetworkServiceClient(calls), conn: conn,
	}, nil
}

func load(env run.Env, c contexts.Context, dir string) (*identity.Keeper, error) {
	keep, err := identity.Load(env, dir)
	if errs.KindOf(err) == errs.NotFound {
		return nil, errs.New(errs.NotFound, "context %q has no certificate in %s; copy the whole folder from where it was made", c.Name, dir)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, errs.New(errs.Denied, "context %q: %w; run the command as the person who owns it, with sudo if that is root", c.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", c.Name, err)
	}
	return keep, nil
}

// Addresses fills in the gateway's port where an address has none.
func Addresses(gateways []string) ([]string, error) {
	if len(gateways) == 0 {
		return nil, errs.New(errs.Invalid, "the context names no gateway; add one under gateways in its context.yaml, or use --gateway")
	}
	var out []string
	for _, g := range gateways {
		g = strings.TrimSuffix(strings.TrimPrefix(g, "https://"), "/")
		if _, _, err := net.SplitHostPort(g); err != nil {
			g = net.JoinHostPort(strings.Trim(g, "[]"), GatewayPort)
		}
		out = append(out, g)
	}
	return out, nil
}

// Close ends all connections.
func (c *Client) Close() error { return c.conn.Close() }

// calls gives every call a deadline, and words to an absent gateway.
type calls struct {
	conn  *grpc.ClientConn
	where string
}

func (c *calls) Invoke(ctx context.Context, method string, in, out any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return c.reached(c.conn.Invoke(ctx, method, in, out, opts...))
}

// reached gives words to an absent gateway.
func (c *calls) reached(err error) error {
	if err != nil && errs.KindOf(err) == errs.Unavailable && strings.Contains(err.Error(), "dialing") {
		return errs.New(errs.Unavailable, "no gateway answers at %s: %w; check that shoal-gateway runs there and that this machine reaches it, or name another one with --gateway", c.where, err)
	}
	return err
}

func (c *calls) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.conn.NewStream(ctx, d, method, opts...)
	return s, c.reached(err)
}

// RenewIfOld gets the person the next certificate once two thirds of the present one's life are over, from a CA on one of
// the gateways' machines. It is false when nothing was due.
//
// Step 1: the new key is on disk before anybody certifies it. Step 2: the call. Step 3: certificate, then key, so that a
// power cut in between leaves a folder that identity.Load can read.
func RenewIfOld(ctx context.Context, env run.Env, c contexts.Context, dir string) (bool, error) {
	keep, err := load(env, c, dir)
	if err != nil {
		return false, err
	}
	cert := keep.Certificate()
	life := cert.NotAfter.Sub(cert.NotBefore)
	if env.Now().Before(cert.NotBefore.Add(life * 2 / 3)) {
		return false, nil
	}
	key, err := identity.NextKey(env.Files, dir, env.Rand)
	if err != nil {
		return true, err
	}
	csr, err := identity.CSR(env.Rand, key)
	if err != nil {
		return true, err
	}
	gateways, err := Addresses(c.Gateways)
	if err != nil {
		return true, err
	}
	var faults []error
	for _, g := range gateways {
		resp, err := renew(ctx, env, keep, g, csr)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if err := identity.CheckChain(resp.GetChain(), key, keep.ID()); err != nil {
			return true, errs.New(errs.Invalid, "renew the certificate of context %q: %w", c.Name, err)
		}
		if err := identity.Write(env.Files, dir, resp.GetChain(), resp.GetBundle(), key); err != nil {
			return true, errs.New(errs.Unavailable, "write the certificate of context %q: %w", c.Name, err)
		}
		return true, env.Files.Write(path.Join(dir, "ca.pem"), resp.GetBundle(), 0o644)
	}
	return true, errors.Join(faults...)
}

const (
	renewLimit = 3 * time.Second
	caPort     = "2377"
)

func renew(ctx context.Context, env run.Env, keep *identity.Keeper, gateway string, csr []byte) (*cav1.RenewResponse, error) {
	host, _, err := net.SplitHostPort(gateway)
	if err != nil {
		return nil, err
	}
	conn, err := rpc.DialAddress(env, keep, net.JoinHostPort(host, caPort), authzv1.Role_ROLE_CA)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	return cav1.NewCertificateServiceClient(conn).Renew(ctx, &cav1.RenewRequest{Csr: csr, Version: run.Version()})
}
