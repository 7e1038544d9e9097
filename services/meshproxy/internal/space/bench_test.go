package space_test

import (
	"fmt"
	"net"
	"testing"
	"time"
)

// One short connection after the other to a task, by its own address and by a virtual one, in turn, so that what else the
// machine does touches both alike. The ratio is what counts.
func BenchmarkConnection(b *testing.B) {
	r := newRig(b)
	r.tell([]int{10, 11}, []int{11})
	dial := func(address string) time.Duration {
		started := time.Now()
		c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", address)
		if err != nil {
			b.Fatal(err)
		}
		if got := hear(c); got != "11" {
			b.Fatal(got)
		}
		c.(*net.TCPConn).SetLinger(0) // or all ports are soon waiting
		c.Close()
		return time.Since(started)
	}
	var direct, virtual time.Duration
	r.client.do(func() error {
		for b.Loop() {
			direct += dial("10.0.0.11:80")
			virtual += dial("10.0.0.2:80")
		}
		return nil
	})
	b.ReportMetric(float64(direct.Nanoseconds())/float64(b.N), "ns/direct")
	b.ReportMetric(float64(virtual.Nanoseconds())/float64(b.N), "ns/virtual")
	b.ReportMetric(direct.Seconds()/virtual.Seconds(), "ratio")
}

// One request after the other on a connection that stays open.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b)
	r.tell([]int{10, 11}, []int{11})
	var conns []net.Conn
	for _, address := range []string{"10.0.0.11:80", "10.0.0.2:80"} {
		c, err := r.dial("tcp", address, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		hear(c)
		conns = append(conns, c)
	}
	var took [2]time.Duration
	buf := make([]byte, 100)
	for b.Loop() {
		for i, c := range conns {
			started := time.Now()
			fmt.Fprintln(c, "hello")
			if _, err := c.Read(buf); err != nil {
				b.Fatal(err)
			}
			took[i] += time.Since(started)
		}
	}
	b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
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
