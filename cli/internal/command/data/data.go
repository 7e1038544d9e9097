// Package data has the commands about secrets and configs, which differ in little: a secret's data is never shown.
//
// It owns words and shapes alone: flags in, calls to the cluster, output out. Rules are the cluster's. Its commands are tested
// with all others, by package command.
package data

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/command/workload"
	"github.com/shoalproject/shoal/cli/internal/docker"
	"github.com/shoalproject/shoal/cli/internal/spec"
	"github.com/shoalproject/shoal/cli/internal/table"
)

// object is a secret or config.
type object interface {
	GetMeta() *typesv1.Meta
	GetAnnotations() *typesv1.Annotations
	GetVersions() []*typesv1.DataVersion
	GetTemplate() bool
}

// fresh is a new secret or config.
type fresh struct {
	annotations *typesv1.Annotations
	data        []byte
	template    bool
}

// kind says how secrets and configs differ.
type kind struct {
	noun  string
	long  string
	names func(a *app.App) app.Names

	create func(ctx context.Context, cl *client.Client, n fresh, requestID string) (object, error)
	update func(ctx context.Context, cl *client.Client, name string, a *typesv1.Annotations, data []byte, requestID string) (services []string, err error)
	get    func(ctx context.Context, cl *client.Client, name string) (object, []byte, error)
	list   func(ctx context.Context, cl *client.Client, filters []string, token string) (page []object, next string, err error)
	remove func(ctx context.Context, cl *client.Client, name string) error
}

// upper is the noun as an argument is written.
func upper(noun string) string { return strings.ToUpper(noun) }

func (k kind) group(a *app.App) *cobra.Command {
	return app.Group(k.noun, k.long, k.createCommand(a), k.updateCommand(a), k.lsCommand(a), k.inspectCommand(a), k.rmCommand(a))
}

// most is more than the cluster takes, so that it can say how much it does take.
const most = 2 << 20

// read takes the data from a file, or from what comes in if its name is "-".
func read(a *app.App, name string) ([]byte, error) {
	if name != "-" {
		info, err := a.Env.Files.Stat(name)
		if err == nil && info.Size() > most {
			return nil, errs.New(errs.Invalid, "%s has %d bytes, which is too much", name, info.Size())
		}
		return a.Env.Files.Read(name)
	}
	if a.In == nil {
		return nil, errs.New(errs.Invalid, "nothing comes in; name a file, or pipe the data in")
	}
	data, err := io.ReadAll(io.LimitReader(a.In, most+1))
	if len(data) > most {
		return nil, errs.New(errs.Invalid, "more than %d bytes come in, which is too much", most)
	}
	return data, err
}

func (k kind) createCommand(a *app.App) *cobra.Command {
	var labels []string
	var driver string
	c := &cobra.Command{
		Use: "create [OPTIONS] " + upper(k.noun) + " FILE|-", Short: "Create a " + k.noun + " from a file, or from the standard input", Args: app.Exactly(2),
		Example: fmt.Sprintf("  shoal %s create app.conf ./app.conf\n  printf %%s \"$TEXT\" | shoal %s create app.key -", k.noun, k.noun),
		RunE: func(c *cobra.Command, args []string) error {
			what := fmt.Sprintf("create %s %q", k.noun, args[0])
			set, err := spec.Labels(labels, nil)
			if err != nil {
				return fmt.Errorf("%s: label: %w", what, err)
			}
			if driver != "" && driver != docker.TemplateDriver {
				return errs.New(errs.Invalid, "%s: template-driver: %q is not %s", what, driver, docker.TemplateDriver)
			}
			data, err := read(a, args[1])
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				made, err := k.create(c.Context(), cl, fresh{&typesv1.Annotations{Name: args[0], Labels: set}, data, driver != ""}, identity.NewID(a.Env.Rand))
				if err != nil {
					return app.Wrap(err, "%s", what)
				}
				fmt.Fprintln(a.Out, made.GetMeta().GetId())
				return nil
			})
		},
	}
	c.Flags().StringArrayVarP(&labels, "label", "l", nil, "label it: `key=value`")
	c.Flags().StringVar(&driver, "template-driver", "", "golang: fill in {{.Node.Hostname}} and the like in each container")
	app.Complete(c, "template-driver", app.Words(docker.TemplateDriver))
	return c
}

func (k kind) updateCommand(a *app.App) *cobra.Command {
	var add, rm []string
	var w workload.Waiting
	c := &cobra.Command{
		Use: "update [OPTIONS] " + upper(k.noun) + " [FILE|-]", Short: "Give a " + k.noun + " new data, or other labels", Args: app.Between(1, 2),
		Long: "Give a " + k.noun + " new data, as a new version, or other labels. Services that use it, and have not chosen a version, are rolled\n" +
			"to the new one by their update settings; the command waits for them. Old versions stay while a service, or an earlier\n" +
			"version of one, uses them, so that a service can be rolled back.",
		Example: fmt.Sprintf("  shoal %s update app.conf ./app.conf\n  shoal %s update --label-add tier=back app.conf", k.noun, k.noun),
		RunE: func(c *cobra.Command, args []string) error {
			what := fmt.Sprintf("update %s %q", k.noun, args[0])
			var data []byte
			if len(args) > 1 {
				got, err := read(a, args[1])
				if err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
				data = append([]byte{}, got...) // an empty file is data, which the cluster refuses
			}
			if data == nil && len(add)+len(rm) == 0 {
				return &app.UsageError{Err: errs.New(errs.Invalid, "%s: give a file, --label-add or --label-rm", what)}
			}
			return a.Connect(c.Context(), func(cl *client.Client) error { return k.change(c.Context(), a, cl, w, args[0], data, add, rm) })
		},
	}
	c.Flags().StringArrayVar(&add, "label-add", nil, "add or replace a label: `key=value`")
	c.Flags().StringArrayVar(&rm, "label-rm", nil, "remove a label by its `key`")
	w.Flags(c, "progress")
	return app.Completed(c, k.names(a))
}

func (k kind) change(ctx context.Context, a *app.App, cl *client.Client, w workload.Waiting, name string, data []byte, add, rm []string) error {
	what := fmt.Sprintf("update %s %q", k.noun, name)
	var annotations *typesv1.Annotations
	if len(add)+len(rm) > 0 {
		old, _, err := k.get(ctx, cl, name)
		if err != nil {
			return app.Wrap(err, "%s", what)
		}
		labels, err := spec.Labels(add, old.GetAnnotations().GetLabels())
		if err != nil {
			return fmt.Errorf("%s: label-add: %w", what, err)
		}
		for _, key := range rm {
			if _, ok := labels[key]; !ok {
				return errs.New(errs.Invalid, "%s: label-rm: there is no label %q to remove", what, key)
			}
			delete(labels, key)
		}
		annotations = &typesv1.Annotations{Labels: labels}
	}
	services, err := k.update(ctx, cl, name, annotations, data, identity.NewID(a.Env.Rand))
	if err != nil {
		return app.Wrap(err, "%s", what)
	}
	fmt.Fprintln(a.Out, name)
	w.Updated = true
	for _, service := range services {
		got, err := app.Service(ctx, cl, service)
		if err != nil {
			return err
		}
		if err := workload.Converge(ctx, a, cl, w, got.GetService().GetMeta().GetId(), service); err != nil {
			return err
		}
	}
	return nil
}

func (k kind) lsCommand(a *app.App) *cobra.Command {
	var l app.Listing
	c := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List " + k.noun + "s", Args: app.Exactly(0),
		Long: "List " + k.noun + "s. Filters: id, name, label.",
		RunE: func(c *cobra.Command, _ []string) error {
			filters, err := l.Checked()
			if err != nil {
				return err
			}
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var rows []docker.DataRow
				err := client.Pages(func(token string) (string, error) {
					page, next, err := k.list(c.Context(), cl, filters, token)
					for _, o := range page {
						rows = append(rows, docker.DataRowOf(o, a.Env.Now(), l.Whole()))
					}
					return next, err
				})
				if err != nil {
					return app.Wrap(err, "list %ss", k.noun)
				}
				columns := []table.Column{
					{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}, {Header: "VERSION", Field: "Version"},
					{Header: "CREATED", Field: "CreatedAt"}, {Header: "UPDATED", Field: "UpdatedAt"},
				}
				return app.PrintRows(a, &l, columns, rows, func(r docker.DataRow) string { return r.ID })
			})
		},
	}
	l.Flags(c, "ids")
	return c
}

func (k kind) inspectCommand(a *app.App) *cobra.Command {
	var format string
	var pretty bool
	c := &cobra.Command{
		Use: "inspect [OPTIONS] " + upper(k.noun) + " [" + upper(k.noun) + "...]", Short: "Show all about " + k.noun + "s", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				var list []docker.Data
				fault := app.Each(args, func(name string) error {
					o, data, err := k.get(c.Context(), cl, name)
					if err != nil {
						return app.Wrap(err, "%s %q", k.noun, name)
					}
					list = append(list, docker.DataOf(o, data))
					return nil
				})
				if pretty && format == "" {
					format = docker.PrettyData
				}
				return app.JoinFaults(table.Inspect(a.Out, format, list), fault)
			})
		},
	}
	c.Flags().StringVarP(&format, "format", "f", "", "Go `template` or json")
	c.Flags().BoolVar(&pretty, "pretty", false, "show it for people")
	return app.Completed(c, k.names(a))
}

func (k kind) rmCommand(a *app.App) *cobra.Command {
	c := &cobra.Command{
		Use: "rm " + upper(k.noun) + " [" + upper(k.noun) + "...]", Aliases: []string{"remove"}, Short: "Remove " + k.noun + "s that no service uses", Args: app.AtLeastOne(),
		RunE: func(c *cobra.Command, args []string) error {
			return a.Connect(c.Context(), func(cl *client.Client) error {
				return app.Each(args, func(name string) error {
					if err := k.remove(c.Context(), cl, name); err != nil {
						return app.Wrap(err, "remove %s %q", k.noun, name)
					}
					fmt.Fprintln(a.Out, name)
					return nil
				})
			})
		},
	}
	return app.Completed(c, k.names(a))
}
