package data

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/errs"
	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
)

func volumePrune(a *app.App) *cobra.Command {
	var l app.Listing
	var nodes []string
	var all, force bool
	c := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove volumes that nobody will ask for again", Args: app.Exactly(0),
		Long: "Remove volumes of slots whose service is gone, and those that were given up. With --all also volumes of nodes that no container\n" +
			"uses and no service names in a mount, nor has named. What a service that is there may ask for again stays: `shoal volume rm`\n" +
			"removes it. Filters: name, label, node, service.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := volumeFilters(&l)
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				doomed, err := unused(c.Context(), a, cl, nodes, all)
				if err != nil {
					return err
				}
				doomed = slices.DeleteFunc(doomed, func(v *logsv1.ListedVolume) bool { return !filters.pass(v) })
				if len(doomed) == 0 {
					fmt.Fprintln(a.Err, "nothing to remove")
					return nil
				}
				if !force && !agreed(a, doomed) {
					return errs.New(errs.Precondition, "nothing was removed; --force does it without a question")
				}
				var faults []error
				for _, v := range doomed {
					faults = append(faults, removeVolume(c.Context(), a, cl, v.GetNodeId(), v.GetVolume().GetName(), false))
				}
				return app.JoinFaults(faults...)
			})
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also volumes of nodes that no container uses and no service names")
	c.Flags().BoolVarP(&force, "force", "f", false, "do not ask")
	c.Flags().StringArrayVar(&l.Filters, "filter", nil, "only what matches: `key=value`")
	nodeFlag(a, c, &nodes)
	return c
}

// unused are the volumes that prune is about.
func unused(ctx context.Context, a *app.App, cl *client.Client, nodes []string, all bool) (out []*logsv1.ListedVolume, err error) {
	// The services after the volumes: one that is made in between is there.
	volumes, err := listVolumes(ctx, a, cl, nodes)
	if err != nil {
		return nil, err
	}
	there, tied := map[string]bool{}, mounted{}
	var ids []string
	err = client.Pages(func(token string) (string, error) {
		resp, err := cl.Services.ListServices(ctx, &controlv1.ListServicesRequest{PageToken: token})
		for _, s := range resp.GetServices() {
			there[s.GetService().GetSpec().GetAnnotations().GetName()] = true
			tied.add(s.GetService())
			ids = append(ids, s.GetService().GetMeta().GetId())
		}
		return resp.GetNextPageToken(), err
	})
	if err != nil {
		return nil, app.Wrap(err, "list services")
	}
	for _, id := range ids { // a list is without earlier specs
		if !all {
			break
		}
		resp, err := cl.Services.GetService(ctx, &controlv1.GetServiceRequest{Service: id})
		if err != nil && !errs.Is(err, errs.NotFound) {
			return nil, app.Wrap(err, "look for earlier mounts of service %q", id)
		}
		tied.add(resp.GetService())
	}
	for _, v := range volumes {
		switch service := v.GetVolume().GetService(); {
		case v.GetUnseen() || len(v.GetVolume().GetUsers()) > 0:
		case service == "" && all && !tied.has(v.GetVolume().GetName()), service != "" && !there[service], docker.GivenUp(v):
			out = append(out, v)
		}
	}
	return out, nil
}

// mounted are the names of nodes' volumes that services have in a mount, now or in a spec that they may go back to. Such a
// volume may have no container for a while: the service has no replicas, or its task is between two runs.
type mounted []string

func (m *mounted) add(s *typesv1.Service) {
	tasks := []*typesv1.TaskSpec{s.GetSpec().GetTask()}
	for _, r := range s.GetSpecHistory() {
		tasks = append(tasks, r.GetTask())
	}
	for _, t := range tasks {
		for _, mount := range t.GetContainer().GetMounts() {
			volume := mount.GetType() == typesv1.MountType_MOUNT_TYPE_VOLUME || mount.GetType() == typesv1.MountType_MOUNT_TYPE_UNSPECIFIED
			if volume && mount.GetSource() != "" && mount.GetVolume().GetScope() != typesv1.VolumeScope_VOLUME_SCOPE_SLOT {
				*m = append(*m, mount.GetSource())
			}
		}
	}
}

// has says that a mount names the volume. Anything may stand in a placeholder's place.
func (m *mounted) has(volume string) bool {
	return slices.ContainsFunc(*m, func(source string) bool {
		before, _, open := strings.Cut(source, "{{")
		if !open {
			return source == volume
		}
		after := source[strings.LastIndex(source, "}}")+1:]
		return strings.HasPrefix(volume, before) && strings.HasSuffix(volume, strings.TrimPrefix(after, "}"))
	})
}

// agreed asks a person, if there is one.
func agreed(a *app.App, doomed []*logsv1.ListedVolume) bool {
	if a.In == nil {
		return false
	}
	fmt.Fprintln(a.Err, "This removes, with all that is in them:")
	for _, v := range doomed {
		fmt.Fprintf(a.Err, "  %s on %s\n", v.GetVolume().GetName(), v.GetHostname())
	}
	fmt.Fprint(a.Err, "Are you sure? [y/N] ")
	line, _ := bufio.NewReader(a.In).ReadString('\n') // no answer is none
	return strings.EqualFold(strings.TrimSpace(line), "y")
}
