package simnet_test

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/sim/simnet"
)

func giveUpAfter(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	p, ok := c.(interface{ SetUserTimeout(d time.Duration) })
	if !ok {
		t.Fatal("the connection has no SetUserTimeout")
	}
	p.SetUserTimeout(d)
}

// What is not acknowledged in time ends the connection, whichever way is closed; nothing sent, nothing ended.
func TestUserTimeout(t *testing.T) {
	for name, from := range map[string]string{"there": "a", "back": "b"} {
		t.Run(name, func(t *testing.T) {
			two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
				client, _ := connect(t, a, b, "10.0.0.2:80")
				giveUpAfter(t, client, 2*time.Second)
				n.Partition([]string{from}, nil, true)
				time.Sleep(time.Minute) // idle: nobody asks for an acknowledgement
				began := time.Now()
				send(t, client, "anybody?")
				_ = client.SetReadDeadline(time.Now().Add(time.Minute))
				_, err := client.Read(make([]byte, 1))
				if took := time.Since(began); !errors.Is(err, syscall.ETIMEDOUT) || took != 2*time.Second {
					t.Errorf("after %s: %v, want ETIMEDOUT after 2s", took, err)
				}
				if n.Stats().GivenUp != 1 {
					t.Errorf("stats %+v", n.Stats())
				}
			})
		})
	}
}

func TestUserTimeoutSparesWhatIsAcknowledgedInTime(t *testing.T) {
	two(t, func(t *testing.T, n *simnet.Net, a, b *simnet.Host) {
		client, server := connect(t, a, b, "10.0.0.2:80")
		giveUpAfter(t, client, 2*time.Second)
		n.Partition([]string{"a"}, []string{"b"}, false)
		send(t, client, "late")
		time.Sleep(time.Second)
		n.Heal()
		time.Sleep(time.Minute)
		expect(t, server, time.Second, "late")
	})
}
