package pass

import (
	"errors"
	"testing"

	"github.com/shoalproject/shoal/internal/testx"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// told is what the health was told last of the firewall.
type told struct{ ok bool }

func (h *told) Set(_ string, ok bool, _ string) { h.ok = ok }

// TestOneFailedLook: others change their rules while they are listed, which is no cause for a person to look; what fails again is.
func TestOneFailedLook(t *testing.T) {
	h := &told{ok: true}
	p, m := New(testx.Env(t), h), &mesh.Model{}
	for _, look := range []struct {
		err error
		ok  bool
	}{{nil, true}, {errors.New("interrupted"), true}, {nil, true}, {errors.New("interrupted"), true}, {errors.New("no right"), false}, {nil, true}} {
		p.open = func() (int, error) { return 0, look.err }
		if err := p.Apply(t.Context(), m); err != nil || h.ok != look.ok {
			t.Errorf("after a look that ends with %v: %v, healthy %t, want %t", look.err, err, h.ok, look.ok)
		}
	}
}
