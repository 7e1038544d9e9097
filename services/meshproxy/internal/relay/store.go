package relay

import (
	"errors"

	"golang.org/x/sys/unix"
)

const (
	// mostPipes bounds those of one loop; who gets none carries by hand.
	mostPipes = 256
	// idlePipes and idleRooms are how many are kept for the next one.
	idlePipes = 8
	idleRooms = 64
	pipeSize  = 256 << 10
)

// store has what the ways of one loop need for a while. It belongs to the loop.
type store struct {
	scratch [sipSize]byte
	came    [gulp]byte // of a link
	plain   [gulp + record]byte
	sealed  []byte
	rooms   []*[sipSize]byte
	pipes   []*pipe
	piped   int // pipes that there are
}

func (s *store) takeRoom() *[sipSize]byte {
	if n := len(s.rooms); n > 0 {
		room := s.rooms[n-1]
		s.rooms = s.rooms[:n-1]
		return room
	}
	return new([sipSize]byte)
}

func (s *store) giveRoom(room *[sipSize]byte) {
	if len(s.rooms) < idleRooms {
		s.rooms = append(s.rooms, room)
	}
}

// takePipe is nil at the bound, or if the process has no descriptors left.
func (s *store) takePipe() *pipe {
	if n := len(s.pipes); n > 0 {
		p := s.pipes[n-1]
		s.pipes = s.pipes[:n-1]
		return p
	}
	if s.piped >= mostPipes {
		return nil
	}
	p, err := newPipe()
	if err != nil {
		return nil
	}
	s.piped++
	return p
}

// givePipe keeps one that is empty. What one holds of an ended pair is nobody else's.
func (s *store) givePipe(p *pipe) {
	if p.holds == 0 && len(s.pipes) < idlePipes {
		s.pipes = append(s.pipes, p)
		return
	}
	p.close()
	s.piped--
}

func (s *store) close() {
	for _, p := range s.pipes {
		p.close()
	}
	s.pipes = nil
}

// pipe holds bytes in the kernel on their way from one socket to another (splice(2)).
type pipe struct {
	in, out int
	holds   int
}

func newPipe() (*pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	// At the bound of what one user's pipes may have it stays smaller, and works.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{in: fds[1], out: fds[0]}, nil
}

// fill is for an empty pipe: else the kernel's word for an empty socket would mean a full pipe, too.
func (p *pipe) fill(src int) (int, error) {
	n, err := splice(src, p.in, pipeSize)
	p.holds += n
	return n, err
}

func (p *pipe) drain(dst int) (int, error) {
	n, err := splice(p.out, dst, p.holds)
	p.holds -= n
	return n, err
}

func (p *pipe) close() {
	_ = errors.Join(unix.Close(p.in), unix.Close(p.out)) // nobody waits for what they hold
}

func splice(from, to, most int) (int, error) {
	n, err := again(func() (int, error) {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		return int(n), err
	})
	return max(0, n), err
}
