package app

import (
	"context"
	"fmt"
	"path"
	"strings"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/client"
)

// Service finds a service by name, id or prefix of an id.
func Service(ctx context.Context, cl *client.Client, name string) (*controlv1.GetServiceResponse, error) {
	got, err := cl.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: name})
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", name, err)
	}
	return got, nil
}

// Node finds a machine by id, prefix or hostname; `self` is this one.
func (a *App) Node(ctx context.Context, cl *client.Client, name string) (*controlv1.GetNodeResponse, error) {
	if name == "self" {
		if name = a.Self(); name == "" {
			return nil, errs.New(errs.NotFound, "this machine is in no cluster, so there is no node \"self\"")
		}
	}
	got, err := cl.Nodes.GetNode(ctx, &controlv1.GetNodeRequest{Node: name})
	if err != nil {
		return nil, fmt.Errorf("node %q: %w", name, err)
	}
	return got, nil
}

// Self is this machine's id; empty where shoal does not run.
func (a *App) Self() string {
	data, err := a.Env.Files.Read(path.Join(a.Root, enroll.DefaultRoot, "machine-id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// Network finds a network by name, id or prefix of an id.
func Network(ctx context.Context, cl *client.Client, name string) (*typesv1.Network, error) {
	got, err := cl.Networks.GetNetwork(ctx, &controlv1.GetNetworkRequest{Network: name})
	if err != nil {
		return nil, fmt.Errorf("network %q: %w", name, err)
	}
	return got.GetNetwork(), nil
}
