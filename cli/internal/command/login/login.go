// Package login has the commands about registries that machines log in to.
//
// It owns words and shapes alone: flags in, calls to the cluster, output out. Rules are the cluster's. It must never show a
// login. Its commands are tested with all others, by package command.
package login

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// Registries is the group of commands about registries.
func Registries(a *app.App) *cobra.Command {
	return app.Group("registry", "Registries: what machines say when they pull private images", loginCommand(a), lsCommand(a), rmCommand(a))
}

// most is more than the cluster takes.
const most = 64 << 10

type flags struct {
	user            string
	password, token bool
	labels          []string
}

func loginCommand(a *app.App) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use: "login [OPTIONS] HOST[/PATH]", Short: "Let the cluster keep a login for a registry, or for a part of one", Args: app.Exactly(1),
		Long: "Let the cluster keep a login for a registry, or for the images of it whose names begin with a path, in the place of\n" +
			"the one that it had. It goes to machines with a task whose image is there. No running task is touched. Without\n" +
			"--username and --token-stdin it is the one that docker login has left for the host.",
		Example: "  printf %s \"$PASSWORD\" | shoal registry login -u ada --password-stdin registry.example:5000\n" +
			"  docker login registry.example && shoal registry login registry.example/team",
		RunE: func(c *cobra.Command, args []string) error {
			what := fmt.Sprintf("keep the login for %s", args[0])
			name := strings.TrimSuffix(strings.TrimPrefix(args[0], "https://"), "/")
			labels, err := spec.Labels(f.labels, nil)
			if err != nil {
				return fmt.Errorf("%s: label: %w", what, err)
			}
			login, err := f.login(a, name)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				_, err := cl.Logins.SetRegistry(c.Context(), &controlv1.SetRegistryRequest{Name: name, Login: login, Labels: labels, RequestId: identity.NewID(a.Env.Rand)})
				if err == nil {
					fmt.Fprintln(a.Out, name)
				}
				return app.Wrap(err, "%s", what)
			})
		},
	}
	c.Flags().StringVarP(&f.user, "username", "u", "", "user name")
	c.Flags().BoolVar(&f.password, "password-stdin", false, "take the password from the standard input")
	c.Flags().BoolVar(&f.token, "token-stdin", false, "take an identity token from the standard input, in the place of user and password")
	c.Flags().StringArrayVarP(&f.labels, "label", "l", nil, "label it: `key=value`")
	return app.Completed(c, a.RegistryNames)
}

// login is what the flags say, or what docker login has left.
func (f *flags) login(a *app.App, name string) (*typesv1.RegistryLogin, error) {
	switch {
	case f.token && (f.password || f.user != ""):
		return nil, &app.UsageError{Err: errs.New(errs.Invalid, "--token-stdin is in the place of --username and --password-stdin")}
	case f.password != (f.user != ""):
		return nil, &app.UsageError{Err: errs.New(errs.Invalid, "--username and --password-stdin go together")}
	case f.token:
		token, err := typed(a)
		return &typesv1.RegistryLogin{IdentityToken: token}, err
	case f.password:
		password, err := typed(a)
		return &typesv1.RegistryLogin{Username: f.user, Password: password}, err
	case a.Registry == nil:
		return nil, errs.New(errs.Invalid, "give --username and --password-stdin")
	}
	host, _, _ := strings.Cut(name, "/")
	return a.Registry.Login(host)
}

// typed is what comes in, without the end of its line.
func typed(a *app.App) (string, error) {
	if a.In == nil {
		return "", errs.New(errs.Invalid, "nothing comes in; pipe the password in")
	}
	data, err := io.ReadAll(io.LimitReader(a.In, most+1))
	if err == nil && len(data) > most {
		err = errs.New(errs.Invalid, "more than %d bytes come in, which is too much", most)
	}
	return strings.TrimRight(string(data), "\r\n"), err
}

func lsCommand(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List what the cluster has logins for", Args: app.Exactly(0),
		Long: "List what the cluster has logins for; the logins are never shown. Filters: id, name, label.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				rows, err := list(c.Context(), a, cl, filters, l.Whole())
				if err != nil {
					return app.Wrap(err, "list registries")
				}
				columns := []table.Column{
					{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "CREATED", Field: "CreatedAt"}, {Header: "UPDATED", Field: "UpdatedAt"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.DataRow) string { return r.ID })
			})
		},
	}
	l.Flags(c, "ids")
	return c
}

func list(ctx context.Context, a *app.App, cl *client.Client, filters []string, whole bool) (rows []docker.DataRow, err error) {
	err = client.Pages(func(token string) (string, error) {
		resp, err := cl.Logins.ListRegistries(ctx, &controlv1.ListRegistriesRequest{Filters: filters, PageToken: token})
		for _, r := range resp.GetRegistries() {
			rows = append(rows, docker.DataRowOf(r, a.Env.Now(), whole))
		}
		return resp.GetNextPageToken(), err
	})
	return rows, err
}

func rmCommand(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "rm HOST[/PATH] [HOST[/PATH]...]", Aliases: []string{"remove", "logout"}, Short: "Let the cluster forget logins", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					if _, err := cl.Logins.DeleteRegistry(c.Context(), &controlv1.DeleteRegistryRequest{Registry: name}); err != nil {
						return app.Wrap(err, "remove the login for %s", name)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	return app.Completed(c, a.RegistryNames)
}
