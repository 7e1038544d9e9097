package forward_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/meshproxy/internal/forward"
)

// An exchange that is under way when the process is told to end comes to its end, on this machine and through another's.
func TestStopLetsExchangesEnd(t *testing.T) {
	for _, place := range places() {
		t.Run(place.name, func(t *testing.T) {
			r := rigOf(t, place.links)
			for _, f := range []*forward.Forwarder{r.a, r.b} {
				f.Last(time.Minute) // whatever else the machine does
			}
			asked, stopped := make(chan struct{}, 1), make(chan struct{})
			task := r.task("web.1", place.node, func(c net.Conn) {
				defer c.Close()
				_, _ = io.ReadAll(c) // what the client says, to its end
				select {
				case asked <- struct{}{}:
				default: // a connection of refused
					return
				}
				<-stopped
				_, _ = io.WriteString(c, "the answer")
			})
			p := publish(t, "tcp", task)
			r.apply(p)
			client, err := net.Dial("tcp", at("127.0.0.1", p))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if err := client.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			<-asked
			r.stop()
			refused(t, at("127.0.0.1", p))
			if ended(client, 50*time.Millisecond) {
				t.Error("it was cut")
			}
			if err := client.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			close(stopped)
			if got, err := io.ReadAll(client); string(got) != "the answer" {
				t.Errorf("answered %q, %v", got, err)
			}
		})
	}
}

// refused waits until nobody listens at the address: the stop has come through.
func refused(t *testing.T, address string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s is still listened on", address)
		}
		<-tick.C
	}
}
