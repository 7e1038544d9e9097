// Package console is the terminal that a person types at.
//
// It owns the terminal's mode, its size and the signals that are meant for a command elsewhere. It must never read or write
// what is typed or shown. A Console is used by one command.
package console

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Console is standard input and output, as far as they are a terminal.
type Console struct{ In, Out *os.File }

// Real is this process's.
func Real() *Console { return &Console{In: os.Stdin, Out: os.Stdout} }

// InputIsTerminal says whether somebody types.
func (c *Console) InputIsTerminal() bool { return isTerminal(c.In) }

// OutputIsTerminal says whether somebody looks.
func (c *Console) OutputIsTerminal() bool { return isTerminal(c.Out) }

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Raw passes every key on as it is, until restore is called: the other end has a terminal that knows what to do with it.
func (c *Console) Raw() (restore func(), err error) {
	fd := int(c.In.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	raw := *old // as cfmakeraw(3) does
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, err
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil // the terminal is gone if this fails
}

// Size is the terminal's, in characters; zero if there is none.
func (c *Console) Size() (width, height uint32) {
	s, err := unix.IoctlGetWinsize(int(c.Out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return uint32(s.Col), uint32(s.Row)
}

// Resized tells each time when the terminal may have another size, until stop is called.
func (c *Console) Resized() (changed <-chan os.Signal, stop func()) { return notify(syscall.SIGWINCH) }

// Signals are those that are meant for the command elsewhere, until stop is called.
func (c *Console) Signals() (signals <-chan os.Signal, stop func()) {
	return notify(syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
}

func notify(which ...os.Signal) (<-chan os.Signal, func()) {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, which...)
	return ch, func() { signal.Stop(ch) }
}
