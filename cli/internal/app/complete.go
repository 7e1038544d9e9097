package app

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"

	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
)

// completeLimit: a person who presses Tab does not wait longer.
const completeLimit = time.Second

// Names lists what a word on the command line may be.
type Names func(ctx context.Context) []string

// Completed makes every argument of a command complete with live names.
func Completed(c *cobra.Command, list Names) *cobra.Command {
	c.ValidArgsFunction = completion(list)
	return c
}

// Complete makes a flag complete with live names.
func Complete(c *cobra.Command, flag string, list Names) {
	_ = c.RegisterFlagCompletionFunc(flag, completion(list)) // fails only for a flag that is not there
}

func completion(list Names) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(c *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(c.Context(), completeLimit)
		defer cancel()
		seen := map[string]bool{}
		for _, g := range given {
			seen[g] = true
		}
		var out []string
		for _, n := range list(ctx) {
			if strings.HasPrefix(n, word) && !seen[n] {
				out = append(out, n)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// Words completes with fixed words.
func Words(list ...string) Names {
	return func(context.Context) []string { return list }
}

func (a *App) ContextNames(context.Context) []string {
	store, err := a.Contexts()
	if err != nil {
		return nil
	}
	list, err := store.List()
	if err != nil {
		return nil
	}
	var out []string
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

// Live asks the cluster; when it does not answer there is nothing to complete with.
func (a *App) Live(ctx context.Context, ask func(c *client.Client) []string) []string {
	var out []string
	if err := a.Connect(ctx, func(c *client.Client) error { out = ask(c); return nil }); err != nil {
		return nil
	}
	return out
}

func (a *App) ServiceNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Services.ListServices(ctx, &controlv1.ListServicesRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range resp.GetServices() {
			out = append(out, s.GetService().GetSpec().GetAnnotations().GetName())
		}
		return out
	})
}

func (a *App) NodeNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Nodes.ListNodes(ctx, &controlv1.ListNodesRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, n := range resp.GetNodes() {
			out = append(out, docker.Hostname(n.GetNode()))
		}
		return out
	})
}

func (a *App) MemberNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Members.ListMembers(ctx, &controlv1.ListMembersRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, m := range resp.GetMembers() {
			out = append(out, docker.MemberRowOf(m, false).Name)
		}
		return out
	})
}

func (a *App) NetworkNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Networks.ListNetworks(ctx, &controlv1.ListNetworksRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, n := range resp.GetNetworks() {
			out = append(out, n.GetSpec().GetAnnotations().GetName())
		}
		return out
	})
}

// SecretNames are the names of the cluster's secrets.
func (a *App) SecretNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Secrets.ListSecrets(ctx, &controlv1.ListSecretsRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range resp.GetSecrets() {
			out = append(out, s.GetAnnotations().GetName())
		}
		return out
	})
}

// ConfigNames are the names of the cluster's configs.
func (a *App) ConfigNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Configs.ListConfigs(ctx, &controlv1.ListConfigsRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, s := range resp.GetConfigs() {
			out = append(out, s.GetAnnotations().GetName())
		}
		return out
	})
}

// VolumeNames are the names of volumes on nodes that can be asked.
func (a *App) VolumeNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Volumes.ListVolumes(ctx, &logsv1.ListVolumesRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, v := range resp.GetVolumes() {
			out = append(out, v.GetVolume().GetName())
		}
		return out
	})
}

// RegistryNames are what the cluster has logins for.
func (a *App) RegistryNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Logins.ListRegistries(ctx, &controlv1.ListRegistriesRequest{})
		if err != nil {
			return nil
		}
		var out []string
		for _, r := range resp.GetRegistries() {
			out = append(out, r.GetAnnotations().GetName())
		}
		return out
	})
}

func (a *App) TaskIDs(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"desired-state=running"}})
		if err != nil {
			return nil
		}
		var out []string
		for _, t := range resp.GetTasks() {
			out = append(out, t.GetTask().GetMeta().GetId())
		}
		return out
	})
}

// TaskNames are the running tasks as <service>.<slot>.
func (a *App) TaskNames(ctx context.Context) []string {
	return a.Live(ctx, func(c *client.Client) []string {
		resp, err := c.Tasks.ListTasks(ctx, &controlv1.ListTasksRequest{Filters: []string{"desired-state=running"}})
		if err != nil {
			return nil
		}
		var out []string
		for _, t := range resp.GetTasks() {
			out = append(out, t.GetName())
		}
		return out
	})
}

// TargetNames are services, and running tasks.
func (a *App) TargetNames(ctx context.Context) []string {
	return append(a.ServiceNames(ctx), a.TaskNames(ctx)...)
}
