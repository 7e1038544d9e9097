package voice_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
	"github.com/shoalproject/shoal/services/meshproxy/internal/voice"
)

// BenchmarkBridge is what the rules of the bridge cost two containers of one machine: a stream, and requests on an open connection, over one
// overlay with the table and without it, in turns. The ratio is what counts: of time, and of the CPU's, of which this process has both
// ends.
func BenchmarkBridge(b *testing.B) {
	for name, w := range map[string]words{"stream": {size: 32 << 20, times: 1}, "requests": {size: 64, times: 500}} {
		b.Run(name, func(b *testing.B) {
			containers(b, func(pids []string, part *voice.Part, m *mesh.Model) {
				conn := w.heard(b, pids)
				defer conn.Close()
				w.compare(b, conn, func() error { return part.Apply(b.Context(), m) })
			})
		})
	}
}

// words are said at once, and answered with one byte, so many times a turn.
type words struct{ size, times int }

// heard is a connection from one container to its neighbour, which answers all words.
func (w words) heard(b *testing.B, pids []string) (conn net.Conn) {
	b.Helper()
	var l net.Listener
	within(b, pids[neighbour], func() (err error) { l, err = net.Listen("tcp", "10.0.0.6:8000"); return err })
	b.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		for buf := make([]byte, min(w.size, 1<<16)); err == nil; {
			for left := w.size; left > 0 && err == nil; left -= len(buf) {
				_, err = io.ReadFull(c, buf)
			}
			if err == nil {
				_, err = c.Write(buf[:1])
			}
		}
	}()
	within(b, pids[asker], func() (err error) { conn, err = net.DialTimeout("tcp", "10.0.0.6:8000", 5*time.Second); return err })
	return conn
}

// compare says it with the table and without, in turns. Neither is always the first.
func (w words) compare(b *testing.B, conn net.Conn, restore func() error) {
	said, answer := make([]byte, w.size), make([]byte, 1)
	var took, used [2][]float64 // without, with
	for i := 0; b.Loop(); i++ {
		for j := range 2 {
			with := (i + j) % 2
			err := []func() error{remove, restore}[with]()
			began, had := time.Now(), cpuTime()
			for range w.times {
				if err == nil {
					_, err = conn.Write(said)
				}
				if err == nil {
					_, err = io.ReadFull(conn, answer)
				}
			}
			if err != nil {
				b.Error(err)
				return
			}
			took[with], used[with] = append(took[with], time.Since(began).Seconds()), append(used[with], (cpuTime()-had).Seconds())
		}
	}
	b.ReportMetric(ratio(took), "ratio")
	b.ReportMetric(ratio(used), "ratio-cpu")
	for with, name := range []string{"without", "with"} {
		each := median(took[with]) / float64(w.times)
		b.ReportMetric(each*1e6, "µs-"+name)
		b.ReportMetric(float64(w.size)/each/1e6, "MB/s-"+name)
	}
}

// remove takes the table away, if it is there.
func remove() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(&nftables.Table{Name: "shoal", Family: nftables.TableFamilyBridge})
	if err := conn.Flush(); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ratio is the median of the turns', what it takes with the table to what it takes without.
func ratio(turns [2][]float64) float64 {
	var all []float64
	for i := range turns[0] {
		all = append(all, turns[1][i]/turns[0][i])
	}
	return median(all)
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/2]
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
