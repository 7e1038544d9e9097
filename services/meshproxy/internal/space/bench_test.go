package space_test

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"
)

// One short connection after the other to a task, by its own address and by a virtual one, in turns, so that what else the
// machine does touches both alike. The ratio is what counts: of time, and of the CPU's, of which this process has both ends.
func BenchmarkConnection(b *testing.B) {
	r := newRig(b)
	r.tell([]int{10, 11}, []int{11})
	dial := func(address string) {
		c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		if got := hear(c); got != "11" {
			b.Fatal(got)
		}
		c.(*net.TCPConn).SetLinger(0) // or all ports are soon waiting
		c.Close()
	}
	r.client.do(func() error {
		inTurns(b, func() { dial("10.0.0.11:80") }, func() { dial("10.0.0.2:80") })
		return nil
	})
}

// One request after the other on a connection that stays open.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b)
	r.tell([]int{10, 11}, []int{11})
	var asks []func()
	buf := make([]byte, 100)
	for _, address := range []string{"10.0.0.11:80", "10.0.0.2:80"} {
		c, err := r.dial("tcp", address, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		hear(c)
		asks = append(asks, func() {
			fmt.Fprintln(c, "hello")
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
		})
	}
	inTurns(b, asks[0], asks[1])
}

// inTurns does one of the two so often, then the other, and tells medians of the turns.
func inTurns(b *testing.B, direct, virtual func()) {
	const perTurn = 100
	var ratios, cpuRatios []float64
	var cpu [2][]float64
	for i := 0; b.Loop(); i++ {
		var took, used [2]time.Duration
		for j := range 2 {
			which := (i + j) % 2 // none is always the first
			started, had := time.Now(), cpuTime()
			for range perTurn {
				[]func(){direct, virtual}[which]()
			}
			took[which], used[which] = time.Since(started), cpuTime()-had
			cpu[which] = append(cpu[which], float64(used[which].Nanoseconds())/1000/perTurn)
		}
		ratios = append(ratios, took[0].Seconds()/took[1].Seconds())
		cpuRatios = append(cpuRatios, used[0].Seconds()/used[1].Seconds())
	}
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(cpuRatios), "ratio-cpu")
	b.ReportMetric(median(cpu[0]), "µs-cpu-direct")
	b.ReportMetric(median(cpu[1]), "µs-cpu-virtual")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it cannot fail for the process itself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// What one endpoint costs that changes, among many services.
func BenchmarkChange(b *testing.B) {
	for _, services := range []int{10, 5000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			r := newRig(b)
			r.among = services
			r.tell([]int{10, 11, 12}, []int{11})
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				m := r.model([]int{10, 11, 12}, []int{12 - i%2})
				b.StartTimer()
				if err := r.spaces.Apply(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What one caller costs that comes or goes, among many services and many callers.
func BenchmarkCaller(b *testing.B) {
	for _, services := range []int{10, 5000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			r := newRig(b)
			r.among = services
			r.tell([]int{10, 11, 12}, []int{11})
			var many []string
			for i := range 100 {
				many = append(many, fmt.Sprintf("10.3.0.%d", i))
			}
			r.allow(many...)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				m := r.callers(many[i%2:]...)
				b.StartTimer()
				if err := r.spaces.Apply(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
