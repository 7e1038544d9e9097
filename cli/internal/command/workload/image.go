package workload

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	controlv1 "github.com/shoalproject/shoal/proto/shoal/control/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"

	"github.com/shoalproject/shoal/cli/internal/app"
	"github.com/shoalproject/shoal/cli/internal/client"
	"github.com/shoalproject/shoal/cli/internal/registry"
)

// imageFlags say how a service's image is asked for.
type imageFlags struct {
	withAuth, noResolve bool
}

func (f *imageFlags) define(c *cobra.Command) {
	c.Flags().BoolVar(&f.withAuth, "with-registry-auth", false, "let the cluster keep this person's login for the image, as docker login has left it")
	c.Flags().BoolVar(&f.noResolve, "no-resolve-image", false, "do not ask the registry for the image's digest and platforms")
}

// pin asks the registry what a tag means, once, so that all nodes run the same. When it can't be asked the tag stays, with
// Docker's words.
func (f *imageFlags) pin(ctx context.Context, a *app.App, image string) registry.Image {
	if f.noResolve || a.Registry == nil || image == "" {
		return registry.Image{Ref: image}
	}
	found, err := a.Registry.Resolve(ctx, image)
	switch {
	case err == nil:
		return found
	case errs.Is(err, errs.Invalid): // the cluster says what is wrong with it
	case strings.Contains(image, "@"): // that is what every node will run
	default:
		fmt.Fprint(a.Err, registry.Warning(image))
	}
	return registry.Image{Ref: image}
}

// use puts what was found into a spec.
func use(s *typesv1.ServiceSpec, image registry.Image) {
	s.Task.Container.Image = image.Ref
	if s.Task.Placement == nil && len(image.Platforms) > 0 {
		s.Task.Placement = &typesv1.Placement{}
	}
	if s.Task.Placement != nil {
		s.Task.Placement.Platforms = image.Platforms
	}
}

// login lets the cluster keep the person's login, for this image and no other of its registry. No service changes by it.
func (f *imageFlags) login(ctx context.Context, a *app.App, cl *client.Client, image string) error {
	if !f.withAuth || a.Registry == nil || a.Rehearse != nil {
		return nil
	}
	repository := state.Repository(image)
	host, _, _ := strings.Cut(repository, "/")
	login, err := a.Registry.Login(host)
	if errs.Is(err, errs.NotFound) {
		fmt.Fprintf(a.Err, "%s; the image is asked for without one\n", err)
		return nil
	}
	if err != nil {
		return err
	}
	_, err = cl.Logins.SetRegistry(ctx, &controlv1.SetRegistryRequest{
		Name: repository, Login: login, ByService: true, RequestId: identity.NewID(a.Env.Rand),
	})
	return app.Wrap(err, "keep the login for %s", repository)
}

// change asks for a new image, and lets the login be kept of the image that the service will have.
func (f *imageFlags) change(c *cobra.Command, a *app.App, cl *client.Client, service string) (func(*typesv1.ServiceSpec), error) {
	ctx, wanted := c.Context(), c.Flags().Lookup("image").Value.String()
	changes := c.Flags().Changed("image")
	if f.withAuth && !changes {
		got, err := app.Service(ctx, cl, service)
		if err != nil {
			return nil, err
		}
		wanted = got.GetService().GetSpec().GetTask().GetContainer().GetImage()
	}
	if err := f.login(ctx, a, cl, wanted); err != nil {
		return nil, err
	}
	if !changes {
		return func(*typesv1.ServiceSpec) {}, nil
	}
	image := f.pin(ctx, a, wanted)
	return func(s *typesv1.ServiceSpec) { use(s, image) }, nil
}
