package main

import (
	"fmt"
	"net"
	"os"
	"time"
)

// tellLimit bounds how long a caller may take to hear who it is.
const tellLimit = 5 * time.Second

// tellTCP tells each caller this container's hostname and the caller's address, as they are here, and hangs up.
func tellTCP(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("TCP tell: %w", err)
	}
	defer listener.Close()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("TCP tell: %w", err)
		}
		_ = conn.SetDeadline(time.Now().Add(tellLimit)) // a line fits its buffer
		_, _ = conn.Write(told(conn.RemoteAddr()))      // the caller has hung up
		_ = conn.Close()
	}
}

// tellUDP answers each datagram with the same.
func tellUDP(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return fmt.Errorf("UDP tell: %w", err)
	}
	defer conn.Close()
	buffer := make([]byte, 1)
	for {
		_, peer, err := conn.ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("UDP tell: %w", err)
		}
		_, _ = conn.WriteTo(told(peer), peer) // lost, as datagrams are
	}
}

func told(caller net.Addr) []byte {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Appendf(nil, "%s %s\n", name, host(caller.String()))
}
