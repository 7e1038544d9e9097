package meshproxy_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

// BenchmarkConnection tells what one short connection costs in CPU, client, task and all meshproxies together: straight to
// the task, through the meshproxy of its machine, and through those of two machines.
func BenchmarkConnection(b *testing.B) {
	w := newWorld(b, run.Env{}.OrMachine("bench").Net)
	w.start("a", "127.0.1.1", nil)
	w.start("b", "127.0.1.2", nil)
	w.task("t1", "127.0.2.1:8000")
	w.task("t2", "127.0.2.2:8000")
	for _, c := range []struct {
		name, address string
		keep          int // of the two endpoints
	}{{"direct", "127.0.2.1:8000", 0}, {"local", "127.0.1.1:30000", 0}, {"remote", "127.0.1.1:30000", 1}} {
		b.Run(c.name, func(b *testing.B) {
			revision := w.dispatcher.last.GetVersion().GetRevision() + 1
			r := tables(revision, nil)
			r.Services[0].Endpoints = []*dispatcherv1.MeshEndpoint{r.Services[0].Endpoints[c.keep]}
			w.dispatcher.publish(r)
			w.eventually("the tables are in force", func() bool {
				w.dispatcher.mu.Lock()
				defer w.dispatcher.mu.Unlock()
				return w.dispatcher.applied["a"] == revision && w.dispatcher.applied["b"] == revision
			})
			before := used(b)
			for b.Loop() {
				if _, err := w.ask(c.address); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((used(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func used(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
