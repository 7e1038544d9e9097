package forward

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
)

// The protocol between meshproxies is described at shoal.mesh.v1.ForwardHeader: a header, a reply, then chunks both ways,
// an empty one at the end of each; then the next header on the same connection.
const (
	maxHeader  = 4096
	bufferSize = 32 << 10
	maxPacket  = 65535
)

// link is a connection to or from a peer that carries one stream at a time.
type link struct {
	net.Conn
	origin
	in    *bufio.Reader
	since time.Time // idle since; the pool's
	once  sync.Once
}

// origin is what a link was made by; of one that a peer has made the machine alone.
type origin struct {
	node      string
	addresses []string        // of the machine, as the tables had them
	trust     <-chan struct{} // closed when trust has changed since
}

func newLink(conn net.Conn, node string) *link {
	return &link{Conn: conn, origin: origin{node: node}, in: bufio.NewReaderSize(conn, bufferSize)}
}

// distrusted says that the peer was admitted by a trust that is no longer in force.
func (o origin) distrusted() bool {
	select {
	case <-o.trust:
		return true
	default:
		return false
	}
}

func (l *link) close() {
	l.once.Do(func() { _ = l.Conn.Close() }) // the peer learns of it from the closing itself
}

// until bounds reads and writes by the context: its deadline, and its end. Call the result when done, and go on only if
// it says that the context has not cut the link.
func (l *link) until(ctx context.Context) func() bool {
	deadline, _ := ctx.Deadline() // zero: none
	if err := l.SetDeadline(deadline); err != nil {
		l.close() // the next read or write tells
	}
	stop := context.AfterFunc(ctx, l.close)
	return func() bool { return stop() && l.SetDeadline(time.Time{}) == nil }
}

// send writes a message after its length.
func (l *link) send(m proto.Message) error {
	data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4, 256), m)
	if err != nil {
		return err
	}
	if len(data)-4 > maxHeader {
		return errs.New(errs.Invalid, "a header of %d bytes is above %d", len(data)-4, maxHeader)
	}
	binary.BigEndian.PutUint32(data, uint32(len(data)-4))
	_, err = l.Write(data)
	return err
}

// receive reads a message after its length.
func (l *link) receive(m proto.Message) error {
	var size [4]byte
	if _, err := io.ReadFull(l.in, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxHeader {
		return errs.New(errs.Invalid, "a header of %d bytes is above %d", n, maxHeader)
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(l.in, data); err != nil {
		return err
	}
	return proto.Unmarshal(data, m)
}

// chunk writes buf[2:2+n] after its length, in one write and so in one TLS record where it fits. An empty one is the end.
func (l *link) chunk(buf []byte, n int) error {
	binary.BigEndian.PutUint16(buf, uint16(n))
	_, err := l.Write(buf[:2+n])
	return err
}

// next reads a chunk's length; 0 is the end.
func (l *link) next() (int, error) {
	head, err := l.in.Peek(2)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // only an empty chunk ends a stream: without it, data may be missing
		}
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head))
	_, err = l.in.Discard(2)
	return n, err
}

// pour writes the n bytes of a chunk as they come, from where they came to.
func (l *link) pour(dst io.Writer, n int) error {
	for n > 0 {
		if _, err := l.in.Peek(1); err != nil {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		data, err := l.in.Peek(min(n, l.in.Buffered()))
		if err != nil {
			return err
		}
		if _, err := dst.Write(data); err != nil {
			return err
		}
		if _, err := l.in.Discard(len(data)); err != nil {
			return err
		}
		n -= len(data)
	}
	return nil
}
