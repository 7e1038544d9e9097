package run

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// A stranger's address is spoken with by one of the ports that nobody chooses for its own calls, though many of them be taken; only
// then by whichever is free. A fault that another port would not mend is told at once.
func TestStrangersPortsAreNobodysOwn(t *testing.T) {
	source, refused := netip.MustParseAddr("198.51.100.9"), os.NewSyscallError("connect", syscall.ECONNREFUSED)
	taken := os.NewSyscallError("bind", syscall.EADDRINUSE)
	for _, c := range []struct {
		taken, tries int // tries: what is wanted
		then         error
	}{{0, 1, nil}, {7, 8, nil}, {8, 9, nil}, {1, 2, refused}} {
		var tried []netip.AddrPort
		_, err := byPorts(source, func(from netip.AddrPort) (net.Conn, error) {
			if tried = append(tried, from); len(tried) <= c.taken {
				return nil, taken
			}
			return nil, c.then
		})
		if !errors.Is(err, c.then) || len(tried) != c.tries {
			t.Errorf("%d taken: %d tries, want %d, %v", c.taken, len(tried), c.tries, err)
		}
		for i, from := range tried {
			if port := from.Port(); from.Addr() != source || (port < 20000 || port > 29999) != (i == 8) || i == 8 && port != 0 {
				t.Errorf("%d taken: try %d is by %s", c.taken, i+1, from)
			}
		}
	}
}
