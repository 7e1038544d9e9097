package data

import (
	"context"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

// Configs is the group of commands about configs.
func Configs(a *app.App) *cobra.Command {
	return kind{
		noun: "config", long: "Configs: data that containers get as files", names: func(a *app.App) app.Names { return a.ConfigNames },
		create: func(ctx context.Context, cl *client.Client, n fresh, requestID string) (object, error) {
			resp, err := cl.Configs.CreateConfig(ctx, &controlv1.CreateConfigRequest{Annotations: n.annotations, Data: n.data, Template: n.template, RequestId: requestID})
			return resp.GetConfig(), err
		},
		update: func(ctx context.Context, cl *client.Client, name string, ann *typesv1.Annotations, data []byte, requestID string) ([]string, error) {
			resp, err := cl.Configs.UpdateConfig(ctx, &controlv1.UpdateConfigRequest{Config: name, Annotations: ann, Data: data, RequestId: requestID})
			return resp.GetServices(), err
		},
		get: func(ctx context.Context, cl *client.Client, name string) (object, []byte, error) {
			resp, err := cl.Configs.GetConfig(ctx, &controlv1.GetConfigRequest{Config: name})
			return resp.GetConfig(), resp.GetData(), err
		},
		list: func(ctx context.Context, cl *client.Client, filters []string, token string) (page []object, next string, err error) {
			resp, err := cl.Configs.ListConfigs(ctx, &controlv1.ListConfigsRequest{Filters: filters, PageToken: token})
			for _, o := range resp.GetConfigs() {
				page = append(page, o)
			}
			return page, resp.GetNextPageToken(), err
		},
		remove: func(ctx context.Context, cl *client.Client, name string) error {
			_, err := cl.Configs.DeleteConfig(ctx, &controlv1.DeleteConfigRequest{Config: name})
			return err
		},
	}.group(a)
}
