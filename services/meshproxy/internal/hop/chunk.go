package hop

import "encoding/binary"

const (
	// Head is the length before each chunk (shoal.mesh.v1.ForwardHeader).
	Head = 2
	// MostSaid is what a chunk has at most, so that it is one record of TLS.
	MostSaid = 16<<10 - Head
)

// Chunk has buf, of which the first Head bytes are free, be a chunk. An empty one is the end.
func Chunk(buf []byte) []byte {
	binary.BigEndian.PutUint16(buf, uint16(len(buf)-Head))
	return buf
}

// Chunks is how far a stream has been read.
type Chunks struct {
	left  int  // of the chunk
	half  bool // first is the first of the two bytes of a length
	first byte
}

// Unpack moves what chunks say to the beginning of data. If the stream is over, rest is what comes after it.
func (c *Chunks) Unpack(data []byte) (said, rest []byte, over bool) {
	n, at := 0, 0
	for at < len(data) {
		switch {
		case c.left > 0:
			moved := copy(data[n:], data[at:min(len(data), at+c.left)])
			n, at, c.left = n+moved, at+moved, c.left-moved
		case !c.half:
			c.first, c.half = data[at], true
			at++
		default:
			c.left, c.half = int(c.first)<<8|int(data[at]), false
			at++
			if c.left == 0 {
				return data[:n], data[at:], true
			}
		}
	}
	return data[:n], nil, false
}

// Message puts a message's length before it: a header or a reply.
func Message(data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, MessageHead+len(data)), uint32(len(data))), data...)
}

const (
	// MessageHead is the length before a message.
	MessageHead = 4
	// MostMessage bounds a message.
	MostMessage = 4096
)

// Cut takes a message from the beginning of data. It is not whole yet, or longer than it may be: sound says which.
func Cut(data []byte) (message, rest []byte, whole, sound bool) {
	if len(data) < MessageHead {
		return nil, data, false, true
	}
	n := binary.BigEndian.Uint32(data)
	if n > MostMessage {
		return nil, data, false, false
	}
	if end := MessageHead + int(n); len(data) >= end {
		return data[MessageHead:end], data[end:], true, true
	}
	return nil, data, false, true
}
