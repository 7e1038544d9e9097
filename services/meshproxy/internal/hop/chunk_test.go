package hop_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// FuzzChunks: whatever a peer sends and in whatever pieces it comes, what its chunks say is what a reader of the whole finds, and what
// comes after the stream's end is left for the next.
func FuzzChunks(f *testing.F) {
	f.Add([]byte{0, 5, 'h', 'e', 'l', 'l', 'o', 0, 0, 'n', 'e', 'x', 't'}, uint8(1))
	f.Add([]byte{0, 1, 'x', 0, 2, 'y', 'z', 0, 0}, uint8(2))
	f.Add([]byte{0xff, 0xff, 1, 2, 3}, uint8(3))
	f.Add([]byte{0}, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		wantSaid, wantRest, wantOver := whole(data)
		var c hop.Chunks
		var said []byte
		for at := 0; at < len(data); {
			end := min(len(data), at+1+int(piece)%50)
			part, rest, over := c.Unpack(bytes.Clone(data[at:end]))
			said, at = append(said, part...), end
			if over {
				rest = append(bytes.Clone(rest), data[end:]...)
				if !wantOver || !bytes.Equal(rest, wantRest) {
					t.Fatalf("over is %v with %q left, want %v, %q", over, rest, wantOver, wantRest)
				}
				wantOver = false
				break
			}
		}
		if wantOver || !bytes.Equal(said, wantSaid) {
			t.Fatalf("said %q, want %q; not over: %v", said, wantSaid, wantOver)
		}
	})
}

// whole reads it as shoal.mesh.v1.ForwardHeader describes it.
func whole(data []byte) (said, rest []byte, over bool) {
	for len(data) >= hop.Head {
		n := int(binary.BigEndian.Uint16(data))
		data = data[hop.Head:]
		if n == 0 {
			return said, data, true
		}
		n = min(n, len(data))
		said, data = append(said, data[:n]...), data[n:]
	}
	return said, nil, false
}

// FuzzCut: a message is found when it is whole, is never longer than it may be, and nothing of what follows is lost.
func FuzzCut(f *testing.F) {
	f.Add(append(hop.Message([]byte("header")), "rest"...))
	f.Add([]byte{0, 0, 0x10, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		message, rest, whole, sound := hop.Cut(data)
		switch {
		case whole && (!sound || len(message) > hop.MostMessage || !bytes.Equal(append(hop.Message(message), rest...), data)):
			t.Fatalf("%q and %q of %q", message, rest, data)
		case !whole && !bytes.Equal(rest, data):
			t.Fatalf("%q is left of %q", rest, data)
		case !whole && sound && len(data) >= hop.MessageHead+hop.MostMessage:
			t.Fatalf("%d bytes have no whole message", len(data))
		}
	})
}

func TestChunkIsWhatUnpackReads(t *testing.T) {
	var c hop.Chunks
	data := append(hop.Chunk([]byte("..some words")), hop.Chunk(make([]byte, hop.Head))...)
	if said, rest, over := c.Unpack(data); string(said) != "some words" || len(rest) > 0 || !over {
		t.Errorf("said %q, left %q, over %v", said, rest, over)
	}
}
