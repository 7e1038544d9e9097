package relay

import (
	"bytes"

	"github.com/shoalproject/shoal/services/meshproxy/internal/hop"
)

// unseal carries what a link says. Cost is how much was read.
func (w *way) unseal(s *store) (cost int, over bool, err error) {
	if len(w.held) > 0 {
		cost, err = w.unload(s)
		return cost, w.ends && len(w.held) == 0, err
	}
	k := w.src.link
	data := k.early
	if k.early = nil; len(data) == 0 {
		data, cost = k.receive(s)
	}
	if len(data) == 0 {
		return cost, false, k.fault
	}
	said, rest, over := k.heard.Unpack(data)
	if over && len(rest) > 0 {
		k.early = bytes.Clone(rest)
	}
	if len(said) == 0 {
		return cost, over, nil
	}
	w.src.pair.speaks()
	taken := 0
	if w.dst.writable {
		if taken, err = w.dst.write(said, over); err != nil {
			return 0, false, err
		}
	}
	if taken < len(said) {
		w.held, w.ends = bytes.Clone(said[taken:]), over
		return cost, false, nil
	}
	return cost, over, nil
}

// seal carries what a link is to say. The end goes with the last words, in one write. It is over when all is sent: who has the link then
// may close it.
func (w *way) seal(s *store) (n int, over bool, err error) {
	k := w.dst.link
	if w.ends || k.behind() > 0 {
		err = k.flush(s)
		return 0, w.ends && k.behind() == 0, err
	}
	for more := true; more && err == nil; {
		var got int
		if got, over, err = w.src.read(s.scratch[hop.Head:]); err != nil {
			break
		}
		if more = got > 0 && w.src.ended && got < hop.MostSaid && n < turnSize; got > 0 || over {
			err = k.say(s, hop.Chunk(s.scratch[:hop.Head+got]))
		}
		n += got
	}
	if n > 0 {
		w.src.pair.speaks()
	}
	if flushed := k.flush(s); err == nil {
		err = flushed
	}
	w.ends = over
	return n, over && k.behind() == 0, err
}
