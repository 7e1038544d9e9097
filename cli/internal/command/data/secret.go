package data

import (
	"context"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
)

// Secrets is the group of commands about secrets.
func Secrets(a *app.App) *cobra.Command {
	return kind{
		noun: "secret", long: "Secrets: data that only the containers that use it may see", names: func(a *app.App) app.Names { return a.SecretNames },
		create: func(ctx context.Context, cl *client.Client, n fresh, requestID string) (object, error) {
			resp, err := cl.Secrets.CreateSecret(ctx, &controlv1.CreateSecretRequest{Annotations: n.annotations, Data: n.data, Template: n.template, RequestId: requestID})
			return resp.GetSecret(), err
		},
		update: func(ctx context.Context, cl *client.Client, name string, ann *typesv1.Annotations, data []byte, requestID string) ([]string, error) {
			resp, err := cl.Secrets.UpdateSecret(ctx, &controlv1.UpdateSecretRequest{Secret: name, Annotations: ann, Data: data, RequestId: requestID})
			return resp.GetServices(), err
		},
		get: func(ctx context.Context, cl *client.Client, name string) (object, []byte, error) {
			resp, err := cl.Secrets.GetSecret(ctx, &controlv1.GetSecretRequest{Secret: name})
			return resp.GetSecret(), nil, err
		},
		list: func(ctx context.Context, cl *client.Client, filters []string, token string) (page []object, next string, err error) {
			resp, err := cl.Secrets.ListSecrets(ctx, &controlv1.ListSecretsRequest{Filters: filters, PageToken: token})
			for _, o := range resp.GetSecrets() {
				page = append(page, o)
			}
			return page, resp.GetNextPageToken(), err
		},
		remove: func(ctx context.Context, cl *client.Client, name string) error {
			_, err := cl.Secrets.DeleteSecret(ctx, &controlv1.DeleteSecretRequest{Secret: name})
			return err
		},
	}.group(a)
}
