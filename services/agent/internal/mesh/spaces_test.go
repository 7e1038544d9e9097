package mesh

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/netpass"
	"github.com/shoalproject/shoal/internal/testx"
)

// others are namespaces of another tool's containers, and of one of ours.
type others struct{}

func (others) Spaces() ([]string, error)            { return nil, nil }
func (others) Socket(string) (*netpass.File, error) { return nil, errs.New(errs.NotFound, "none") }
func (others) Foreign(id string) bool               { return id != "own.0" }

// TestUnwireWaits: another tool's namespace is left to no meshproxy in the midst of a change: its end is waited for, but for no longer
// than a paused meshproxy may hold it. For a container of ours, whose namespace ends, nothing is waited for.
func TestUnwireWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const change = time.Second
		agent, meshproxy := net.Pipe()
		s := newSpaces(testx.Env(t), "mesh.sock", others{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = s.talk(ctx, agent) }()
		var paused atomic.Bool
		go func() {
			for {
				f, err := netpass.Receive(meshproxy)
				if err != nil {
					return
				}
				if !paused.Load() {
					time.AfterFunc(change, func() { _ = netpass.Send(meshproxy, f) })
				}
			}
		}()
		synctest.Wait()
		takes := func(id string) (time.Duration, error) {
			begun := time.Now()
			err := s.unwire(t.Context(), id)
			return time.Since(begun), err
		}
		if d, err := takes("own.0"); d != 0 || err != nil {
			t.Errorf("ours: waited %s, %v", d, err)
		}
		if d, err := takes("guest.0"); d != change || err != nil {
			t.Errorf("another tool's: waited %s, %v", d, err)
		}
		paused.Store(true)
		if d, err := takes("guest.0"); d != goneLimit || !errs.Is(err, errs.Unavailable) {
			t.Errorf("with a paused meshproxy: waited %s, %v", d, err)
		}
	})
}
