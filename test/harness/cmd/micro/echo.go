package main

import (
	"fmt"
	"io"
	"net"

	"golang.org/x/sync/errgroup"
)

// maxEcho bounds the TCP connections that are echoed at once; further ones wait in the listener's queue.
const maxEcho = 1024

func echoTCP(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("TCP echo: %w", err)
	}
	defer listener.Close()
	var group errgroup.Group
	group.SetLimit(maxEcho)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("TCP echo: %w", err)
		}
		group.Go(func() error {
			defer conn.Close()
			_, err := io.Copy(conn, conn)
			return err
		})
	}
}

func echoUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return fmt.Errorf("UDP echo: %w", err)
	}
	defer conn.Close()
	buffer := make([]byte, 65535)
	for {
		n, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("UDP echo: %w", err)
		}
		// A datagram that cannot go back is lost, as datagrams are.
		_, _ = conn.WriteTo(buffer[:n], peer)
	}
}
