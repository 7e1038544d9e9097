package tables_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/seal"
)

// TestKeysFollowEachOther: both machines make new keys at the same time and drop the old ones, and a connection and datagrams that go all
// the while miss nothing, although the two new keys cannot shake hands for a long time. Then one's meshproxy starts anew, which changes
// nothing either.
func TestKeysFollowEachOther(t *testing.T) {
	for name, userSpace := range map[string]bool{"kernel": false, "userspace": true} {
		t.Run(name, func(t *testing.T) {
			l := newSealedLab(t, userSpace)
			end := talk(t, l.a.container, l.b.container, "10.0.0.6:8000")
			first := index(t, l.a.host, "shoal-wg1")
			open := l.a.shut(seal.Port, seal.Port) // as two handshakes do that begin at the same moment, and later ones that are lost
			l.rotation++
			for range 25 {
				l.later(2 * time.Second)
			}
			for _, m := range []*sealedMachine{l.a, l.b} {
				if got := m.generations(); !slices.Equal(got, []uint64{1, 2}) {
					t.Errorf("machine %s has keys %d, want both: the other may send by the old one", m.node, got)
				}
			}
			open()
			for deadline := time.Now().Add(2 * time.Minute); !l.turned(); {
				if time.Now().After(deadline) {
					t.Fatalf("keys are %d and %d: the old ones stay", l.a.generations(), l.b.generations())
				}
				if l.shook() { // before that no time passes for the keys
					l.later(2 * time.Second)
				} else {
					l.later(0)
				}
			}
			second := index(t, l.a.host, "shoal-wg0")
			l.a.ring = l.a.again()
			l.converge()
			if now := index(t, l.a.host, "shoal-wg0"); now != second || now == first {
				t.Errorf("a start of the meshproxy has made the device anew: index %d, was %d", now, second)
			}
			if asked, lost := end(); lost > 0 || asked < 100 {
				t.Errorf("%d datagrams of %d had no answer", lost, asked)
			} else {
				t.Logf("%d datagrams and requests, all answered", asked)
			}
		})
	}
}

// later is a turn of both machines, some time after the last for their keys. Handshakes are renewed by the real clock: to theirs none may
// look too old.
func (l *sealedLab) later(d time.Duration) {
	l.t.Helper()
	for _, m := range []*sealedMachine{l.a, l.b} {
		m.clock = min(m.clock+d, 2*time.Minute)
	}
	l.converge()
	<-time.After(20 * time.Millisecond)
}

// shook says that the two new keys have shaken hands, as machine a sees it.
func (l *sealedLab) shook() bool {
	told, _ := l.b.ring.Told()
	newest := told.GetTunnelKeys()[len(told.GetTunnelKeys())-1]
	seen, err := l.a.devices.Seen("shoal-wg0")
	return err == nil && !seen[seal.PublicKey(newest.GetPublicKey())].IsZero()
}

// turned says that both machines have the new device alone.
func (l *sealedLab) turned() bool {
	return slices.Equal(l.a.generations(), []uint64{2}) && slices.Equal(l.b.generations(), []uint64{2})
}

// shut has nothing pass between a port of this machine and one of the other, until it is opened.
func (m *sealedMachine) shut(own, other uint16) (open func()) {
	m.t.Helper()
	table := &nftables.Table{Name: "shut", Family: nftables.TableFamilyINet}
	change := func(f func(*nftables.Conn)) {
		m.do(func() error {
			conn, err := nftables.New()
			if err != nil {
				return err
			}
			f(conn)
			return conn.Flush()
		})
	}
	change(func(conn *nftables.Conn) {
		conn.AddTable(table)
		for _, way := range []struct {
			name     string
			hook     *nftables.ChainHook
			from, to uint16
		}{{"in", nftables.ChainHookInput, other, own}, {"out", nftables.ChainHookOutput, own, other}} {
			chain := conn.AddChain(&nftables.Chain{
				Name: way.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: way.hook, Priority: nftables.ChainPriorityFilter,
			})
			ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, way.from), way.to)
			conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 4},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ports},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	})
	return func() { change(func(conn *nftables.Conn) { conn.DelTable(table) }) }
}

// generations are those of a machine's keys.
func (m *sealedMachine) generations() (out []uint64) {
	told, _ := m.ring.Told()
	for _, k := range told.GetTunnelKeys() {
		out = append(out, k.GetGeneration())
	}
	return out
}

// talk keeps asking over one connection and by datagrams until it is ended, and says how many datagrams had no answer.
func talk(t *testing.T, from, to *host, address string) (end func() (asked, unanswered int)) {
	t.Helper()
	servePackets(t, to, address, "echo")
	var ln net.Listener
	to.do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	t.Cleanup(func() { ln.Close() })
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(c, c)
		}
	}()
	var stream, packets net.Conn
	from.do(func() (err error) {
		if stream, err = net.DialTimeout("tcp", address, 5*time.Second); err == nil {
			packets, err = net.Dial("udp", address)
		}
		return err
	})
	t.Cleanup(func() { stream.Close(); packets.Close() })
	stop, done := make(chan struct{}), make(chan error, 1)
	var asked, answered int
	go func() {
		buf := make([]byte, 100)
		for {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(10 * time.Millisecond):
			}
			asked++
			packets.Write([]byte("?"))
			packets.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := packets.Read(buf); err == nil {
				answered++
			}
			stream.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := stream.Write([]byte("hello")); err != nil {
				done <- err
				return
			}
			if _, err := io.ReadFull(stream, buf[:5]); err != nil {
				done <- err
				return
			}
		}
	}()
	return func() (int, int) {
		t.Helper()
		close(stop)
		if err := <-done; err != nil {
			t.Errorf("the connection: %v", err)
		}
		return asked, asked - answered
	}
}
