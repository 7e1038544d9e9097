// Package neighbour has the kernel's table of neighbours be large enough: all containers of a machine share it, and when it is full
// first connections get no answer.
//
// It owns the lower bound of three settings, which it raises and never lowers. What one container may put into the table is package
// space's to bound. One goroutine at a time may use a Part.
package neighbour

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/sysctl"
)

// Room is for so many neighbours of each family: sixteen containers that all try to fill it. Each takes half a kilobyte while it is there.
const Room = 65536

// Path is the setting with the most neighbours of a family, "ipv4" or "ipv6". Only the machine's first network namespace has it.
func Path(family string) string { return threshold(family, 3) }

func threshold(family string, n int) string {
	return fmt.Sprintf("net/%s/neigh/default/gc_thresh%d", family, n)
}

// Part follows the models of a machine.
type Part struct {
	env   run.Env
	read  func(path string) (value string, ok bool)
	write func(path, value string) error
	model *mesh.Model
}

// New is for this machine.
func New(env run.Env) *Part { return &Part{env: env, read: sysctl.Read, write: sysctl.Write} }

// Apply looks at the settings, at the first model and when one comes again, which means a look. What it cannot do the doctor tells.
func (p *Part) Apply(_ context.Context, m *mesh.Model) error {
	look := p.model == nil || m == p.model
	p.model = m
	if !look {
		return nil
	}
	raised, err := p.raise()
	if err != nil {
		p.env.Log.Debug("table of neighbours not made larger, will retry", "error", err)
	}
	if raised {
		p.env.Log.Info("table of neighbours made larger", "room", Room)
	}
	return nil
}

// Forget has nothing to clear away.
func (p *Part) Forget() error { return nil }

// raise sets the most first: the kernel begins to forget neighbours from the second bound, which is never above it.
func (p *Part) raise() (raised bool, failed error) {
	for _, family := range []string{"ipv4", "ipv6"} {
		for i, want := range []int{Room, Room / 2} {
			n := 3 - i
			text, there := p.read(threshold(family, n))
			have, err := strconv.Atoi(text)
			if !there || err != nil || have >= want {
				continue
			}
			if err := p.write(threshold(family, n), strconv.Itoa(want)); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			raised = true
		}
	}
	return raised, failed
}
