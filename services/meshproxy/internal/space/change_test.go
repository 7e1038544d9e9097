package space_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// No new connection is lost while the tasks behind an address change, however often, nor while the tables are made anew: one
// that is looked up in the moment of a change is led to one of the tasks as well.
func TestNoConnectionLostInAChange(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil bool
		long  time.Duration
	}{{"changed", false, 5 * time.Second}, {"made anew", true, 3 * time.Second}} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			another := r.another()
			all := []int{10, 11, 12, 13}
			r.tell(all, []int{11, 12, 13})
			models := []*mesh.Model{r.model(all, []int{11}), r.model(all, []int{11, 12, 13})}
			ctx, cancel := context.WithTimeout(t.Context(), tc.long)
			defer cancel()
			count := r.dialUntil(ctx)
			changes := 0
			for ; ctx.Err() == nil; changes++ {
				if tc.spoil {
					another.DelTable(another.AddTable(&nftables.Table{Name: "another", Family: nftables.TableFamilyIPv4}))
					if err := another.Flush(); err != nil {
						t.Fatal(err)
					}
				}
				if err := r.spaces.Apply(t.Context(), models[changes/2%2]); err != nil { // the second time is a look
					t.Fatal(err)
				}
			}
			dialled, lost := count()
			t.Logf("%d connections while the tasks changed %d times", dialled, changes/2)
			if lost > 0 {
				t.Errorf("%d of %d new connections were lost", lost, dialled)
			}
		})
	}
}

// dialUntil has clients dial web all the time until ctx ends.
func (r *rig) dialUntil(ctx context.Context) (count func() (dialled, lost int64)) {
	var dialled, lost atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			r.client.do(func() error {
				for ctx.Err() == nil {
					c, err := (&net.Dialer{Timeout: 2500 * time.Millisecond}).DialContext(r.t.Context(), "tcp", "10.0.0.2:80")
					dialled.Add(1)
					if err != nil {
						r.t.Log(err)
						lost.Add(1)
						continue
					}
					if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil { // or all ports are soon waiting
						return err
					}
				}
				return nil
			})
		})
	}
	return func() (int64, int64) {
		clients.Wait()
		return dialled.Load(), lost.Load()
	}
}

// another opens a socket for changes of the packet filter in the container that are not ours.
func (r *rig) another() (c *nftables.Conn) {
	r.client.do(func() (err error) {
		c, err = nftables.New(nftables.AsLasting())
		return err
	})
	r.t.Cleanup(func() { c.CloseLasting() })
	return c
}
