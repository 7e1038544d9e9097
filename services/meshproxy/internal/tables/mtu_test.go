package tables_test

import (
	"crypto/rand"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestUnderlayOf1400Bytes: what is as large as a packet of the wire can be comes through the mesh and back, on a wire that carries
// less than Ethernet does, and no machine has to say so on the way: each end says itself what it takes.
func TestUnderlayOf1400Bytes(t *testing.T) {
	w := newWorldOn(t, 1400)
	w.publish("b1")
	var ln net.Listener
	w.containers["b1"].do(func() (err error) { ln, err = net.Listen("tcp", ":8001"); return err })
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	sent := make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	for _, is4 := range []bool{true, false} {
		c, err := dialFrom(w.client, net.JoinHostPort(wire("9", is4), "0"), net.JoinHostPort(wire("1", is4), "30001"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		go func() { _, _ = c.Write(sent) }()
		got := make([]byte, len(sent))
		if n, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
			t.Errorf("IPv4 %t: %d of %d bytes come back, %v", is4, n, len(sent), err)
		}
	}
	for _, name := range []string{"shoal0", "shoal-mesh"} {
		w.machines["a"].do(func() error {
			l, err := net.InterfaceByName(name)
			if err == nil && l.MTU != 1350 {
				err = errors.New(name + " carries more than the wire with an envelope around it")
			}
			return err
		})
	}
}
