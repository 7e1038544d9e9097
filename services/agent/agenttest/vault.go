package agenttest

import (
	"context"
	"fmt"
	"slices"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Vault keeps the files of containers while the machine has power.
type Vault struct{ handle }

// Make notes the files of a container.
func (v *Vault) Make(_ context.Context, id string, files []container.File) (binds []container.Bind, err error) {
	err = v.with(func() error {
		if err := v.alive(); err != nil {
			return err
		}
		if len(files) > 0 {
			v.host.files[id] = slices.Clone(files)
		}
		for i, f := range files {
			binds = append(binds, container.Bind{From: fmt.Sprintf("/hollow/%s/%d", id, i), To: f.Path})
		}
		return nil
	})
	return binds, err
}

// Remove forgets them.
func (v *Vault) Remove(_ context.Context, id string) error {
	return v.with(func() error {
		if err := v.alive(); err != nil {
			return err
		}
		delete(v.host.files, id)
		return nil
	})
}

// Sweep removes what nobody keeps.
func (v *Vault) Sweep(_ context.Context, keep func(id string) bool) error {
	return v.with(func() error {
		if err := v.alive(); err != nil {
			return err
		}
		for id := range v.host.files {
			if !keep(id) {
				delete(v.host.files, id)
			}
		}
		return nil
	})
}
