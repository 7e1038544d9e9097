// Package allinone is shoal-dev: the seven processes of a machine in one, with the same Run functions, certificates and
// ports as on their own, so that what works here works on a cluster.
//
// It owns the machine's one place for such a cluster (a lock, the kernel's part, containerd's namespace), and the cluster's
// life: look before leaping, make or find the cluster, run, and take back what was made outside its folder. It must never
// know how a process works, and never touch another shoal on the machine. One cluster at a time runs on a machine.
package allinone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/allinone/internal/claim"
	"github.com/shoalproject/shoal/allinone/internal/cluster"
	"github.com/shoalproject/shoal/allinone/internal/parts"
	"github.com/shoalproject/shoal/allinone/internal/person"
	"github.com/shoalproject/shoal/allinone/internal/preflight"
	"github.com/shoalproject/shoal/allinone/internal/screen"
)

const (
	// startLimit bounds the time until the cluster can be used.
	startLimit = time.Minute
	// resetLimit bounds taking back: containers have 10 s to end.
	resetLimit = time.Minute
)

// dev is one call of the program.
type dev struct {
	cfg     Config
	env     run.Env
	place   parts.Place
	machine preflight.Machine
	person  person.Person
	screen  *screen.Screen
}

// run is a cluster's life on this machine, until ctx ends or a process fails.
func (d *dev) run(ctx context.Context) (err error) {
	began := time.Now()
	// Step 1: look before leaping. The claim is first: else a second shoal-dev would be told of each port that the first has.
	claimed, err := claim.Take(parts.RunDir, d.cfg.Data, d.machine.Privileged)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claimed.Release()) }()
	if err := d.machine.Check(ctx, d.place, claimed.Found()); err != nil {
		return err
	}
	// Step 2: the cluster, made or found. From here on the machine has something of ours.
	made, err := cluster.Open(d.env, d.place, d.person.Name)
	if err != nil {
		return err
	}
	if err := claimed.Begin(); err != nil {
		return err
	}
	d.screen.Begin(run.Version(), d.cfg.Data, made.Made)
	// Step 3: the processes, and beside them the wait for the moment when a person can use them.
	err = d.serve(ctx, made, claimed, began)
	// Step 4: what they have made outside the folder, after all have ended: none may bring back what goes.
	if d.cfg.Keep {
		d.screen.End("stopped; the containers run on")
		return err
	}
	d.screen.End("removing containers, interfaces and rules")
	return errors.Join(err, d.takeBack(ctx, claimed))
}

// serve runs all processes. A failing one ends them all.
func (d *dev) serve(ctx context.Context, made cluster.Cluster, claimed *claim.Claim, began time.Time) error {
	ready := newCountdown()
	g := run.NewGroup(d.env.Log)
	for _, role := range parts.Roles() {
		name := identity.RoleName(role)
		env := parts.Env(d.env, role, func(state string) error {
			if state == "READY=1" && ready.done(name) {
				d.screen.Part(name, time.Since(began))
			}
			return nil
		})
		g.Go(name, func(ctx context.Context) error {
			err := d.place.Run(ctx, role, env)
			if err == nil && ctx.Err() == nil {
				return errs.New(errs.Internal, "ended without being told to")
			}
			return err
		})
	}
	g.Go("start", func(ctx context.Context) error {
		if opened, err := d.open(ctx, made, claimed, ready, began); !opened {
			return err
		}
		// The person's own context is in use again when the cluster ends.
		<-ctx.Done()
		return d.person.Back(d.env.Files, d.cfg.Context, claimed.Before())
	})
	return g.Wait(ctx)
}

// open waits until the cluster can be used, and tells the person how. It is false if that did not come.
func (d *dev) open(ctx context.Context, made cluster.Cluster, claimed *claim.Claim, ready *countdown, began time.Time) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err := ready.wait(limited)
	var token string
	if err == nil {
		token, err = d.ask(limited, made)
	}
	if ctx.Err() != nil {
		return false, nil // told to stop before it was ready
	}
	if err != nil {
		return false, fmt.Errorf("the cluster was not ready within %s: %w", startLimit, err)
	}
	c := contexts.Context{Name: d.cfg.Context, Cluster: made.ID, Gateways: []string{d.place.At(authzv1.Role_ROLE_GATEWAY)}}
	before, err := d.person.Give(d.env, c, cluster.Operator(d.place))
	if err != nil {
		return false, fmt.Errorf("write the context %q: %w", d.cfg.Context, err)
	}
	// One that is in use already was left by a run that was killed, whose note still says what was in use before it.
	if before != c.Name {
		if err := claimed.Use(before); err != nil {
			return false, err
		}
	}
	r := screen.Ready{After: time.Since(began), Context: c.Name, Gateway: c.Gateways[0], Kept: d.cfg.Keep}
	if !d.cfg.loopback() {
		r.Join = "shoal join --token " + token + " " + d.place.At(authzv1.Role_ROLE_CA)
	}
	d.screen.Ready(r)
	return true, nil
}

// takeBack removes what the processes have made on the machine, also after ctx has ended.
func (d *dev) takeBack(ctx context.Context, claimed *claim.Claim) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resetLimit)
	defer cancel()
	if err := d.place.Reset(ctx, d.env); err != nil {
		return fmt.Errorf("%w; `shoal-dev reset` tries again", err)
	}
	removeGroups()
	return claimed.Clean()
}

// removeGroups removes the control group above our containers' in each hierarchy, if it has no other.
func removeGroups() {
	for _, pattern := range []string{"/sys/fs/cgroup/shoal", "/sys/fs/cgroup/*/shoal"} {
		groups, _ := filepath.Glob(pattern) // the pattern is well-formed
		for _, group := range groups {
			_ = os.Remove(group) // the kernel refuses while it has another one below
		}
	}
}

// reset removes everything of the cluster: what is on the machine, the folder and the context.
func (d *dev) reset(ctx context.Context, out io.Writer) (err error) {
	if !d.machine.Privileged {
		return errs.New(errs.Denied, "this takes root: run it with sudo")
	}
	found, err := cluster.Find(d.env.Files, d.place)
	if err != nil {
		return err
	}
	claimed, err := claim.Take(parts.RunDir, d.cfg.Data, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claimed.Release()) }()
	if err := d.takeBack(ctx, claimed); err != nil {
		return err
	}
	if err := d.person.Back(d.env.Files, d.cfg.Context, claimed.Before()); err != nil {
		return err
	}
	if err := d.person.Forget(d.env.Files, d.cfg.Context, found.ID); err != nil {
		return err
	}
	if err := cluster.Remove(d.place); err != nil {
		return err
	}
	fmt.Fprintf(out, "The cluster in %s is gone.\n", d.cfg.Data)
	return nil
}

// newDev puts the machine's parts together.
func newDev(cfg Config, who person.Person, log *slog.Logger, show *screen.Screen) *dev {
	env := run.Env{Log: log}.OrMachine("shoal-dev")
	return &dev{
		cfg: cfg, env: env, person: who, screen: show,
		place: parts.Place{
			Root: path.Clean(cfg.Data), Address: cfg.Advertise, Containerd: cfg.Containerd, Snapshotter: cfg.Snapshotter,
			LogLevel: cfg.LogLevel,
		},
		machine: preflight.Machine{
			Files: env.Files, Net: env.Net, Privileged: os.Geteuid() == 0, Addresses: addresses, Links: links,
		},
	}
}
