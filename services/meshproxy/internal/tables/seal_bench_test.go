package tables_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
	"github.com/shoalproject/shoal/services/meshproxy/internal/mesh"
)

// BenchmarkSealed is what encryption costs between two machines: a stream in one direction, and a request of 64 bytes with its answer on
// an open connection, over an overlay in the clear and over an encrypted one of the same machines. -count takes them by turns.
func BenchmarkSealed(b *testing.B) {
	for _, way := range []struct {
		name              string
		sealed, userSpace bool
	}{{"clear", false, true}, {"kernel", true, false}, {"userspace", true, true}} {
		b.Run(way.name, func(b *testing.B) {
			l := newSealedLab(b, way.userSpace)
			to := "10.0.0.6:8000"
			if !way.sealed {
				l.beside()
				to = "10.0.1.6:8000"
			}
			b.Run("stream", func(b *testing.B) { l.stream(b, to) })
			b.Run("request", func(b *testing.B) { l.request(b, to) })
		})
	}
}

// beside adds a network in the clear, with both containers on it.
func (l *sealedLab) beside() {
	l.plain = &dispatcherv1.MeshNetwork{NetworkId: "p", Name: "plain", Vni: 4098, Entries: []*dispatcherv1.NetworkEntry{
		{TaskId: "t1", NodeId: "a", Addresses: []string{"10.0.1.5"}}, {TaskId: "t2", NodeId: "b", Addresses: []string{"10.0.1.6"}},
	}}
	l.converge()
	for i, m := range []*sealedMachine{l.a, l.b} {
		own := fmt.Sprintf("10.0.1.%d", 5+i)
		attach(m.host, m.container, kernel.Bridge(4098), "shoalv2", "eth2", own+"/24", mesh.MAC(addr(own)))
		mtu(m.container, "eth2", 1450)
	}
}

// between makes a connection from one container to the other.
func (l *sealedLab) between(b *testing.B, to string) (from, at net.Conn) {
	b.Helper()
	var ln net.Listener
	l.b.container.do(func() (err error) {
		ln, err = net.Listen("tcp", to)
		return err
	})
	defer ln.Close()
	l.a.container.do(func() (err error) {
		from, err = net.Dial("tcp", to)
		return err
	})
	at, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { from.Close(); at.Close() })
	return from, at
}

func (l *sealedLab) stream(b *testing.B, to string) {
	const piece = 1 << 20
	from, at := l.between(b, to)
	heard := make(chan error, 1)
	b.SetBytes(piece)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(io.Discard, at, int64(b.N)*piece)
		heard <- err
	}()
	buf := make([]byte, piece)
	for range b.N {
		if _, err := from.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-heard; err != nil {
		b.Fatal(err)
	}
}

func (l *sealedLab) request(b *testing.B, to string) {
	from, at := l.between(b, to)
	go io.Copy(at, at)
	buf := make([]byte, 64)
	b.ResetTimer()
	for range b.N {
		if _, err := from.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(from, buf); err != nil {
			b.Fatal(err)
		}
	}
}
