package tables_test

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"strings"
	"testing"
	"time"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestSCTP: an association with a published port begins at a task on another machine, with the client's address. Packets are made by
// hand: a kernel need not have SCTP sockets to carry them.
func TestSCTP(t *testing.T) {
	w := newWorld(t)
	s := serviceOf("b1")
	s.Ports = []*typesv1.PortConfig{{PublishedPort: 30000, TargetPort: 3868, Protocol: typesv1.Protocol_PROTOCOL_SCTP}}
	w.tell(&dispatcherv1.EndpointsResponse{Services: []*dispatcherv1.MeshService{s}})
	var task, client net.PacketConn
	w.containers["b1"].do(func() (err error) {
		task, err = net.ListenPacket("ip4:132", inside("b1", true))
		return err
	})
	defer task.Close()
	w.client.do(func() (err error) {
		client, err = net.ListenPacket("ip4:132", "198.51.100.9")
		return err
	})
	defer client.Close()
	if _, err := client.WriteTo(initiation(41000, 30000), &net.IPAddr{IP: net.ParseIP("198.51.100.1")}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	if err := task.SetReadDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, from, err := task.ReadFrom(buf)
	if err != nil || n < 12 || !strings.HasPrefix(from.String(), "198.51.100.9") {
		t.Fatalf("the task heard %d bytes from %v, %v; want the client's", n, from, err)
	}
	if source, target := binary.BigEndian.Uint16(buf), binary.BigEndian.Uint16(buf[2:]); source != 41000 || target != 3868 {
		t.Errorf("from port %d to %d, want 41000 to 3868", source, target)
	}
	sum := binary.LittleEndian.Uint32(buf[8:])
	if want := checksum(buf[:n]); sum != want {
		t.Errorf("checksum %#x, want %#x", sum, want)
	}
}

// initiation is a packet with an INIT chunk (RFC 9260, 3.3.2).
func initiation(source, target uint16) []byte {
	b := make([]byte, 32)
	binary.BigEndian.PutUint16(b, source)
	binary.BigEndian.PutUint16(b[2:], target)
	b[12] = 1                                 // INIT
	binary.BigEndian.PutUint16(b[14:], 20)    // its length
	binary.BigEndian.PutUint32(b[16:], 1)     // initiate tag
	binary.BigEndian.PutUint32(b[20:], 65536) // receiver window
	binary.BigEndian.PutUint16(b[24:], 1)     // streams out
	binary.BigEndian.PutUint16(b[26:], 1)     // and in
	binary.BigEndian.PutUint32(b[28:], 1)     // first number
	binary.LittleEndian.PutUint32(b[8:], checksum(b))
	return b
}

// checksum is CRC32c over the packet without its own (RFC 9260, A).
func checksum(packet []byte) uint32 {
	b := append([]byte(nil), packet...)
	clear(b[8:12])
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
