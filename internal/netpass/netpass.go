// Package netpass hands sockets of containers' network namespaces from a machine's agent to its meshproxy.
//
// A netlink socket works on the namespace that it was opened in. The agent opens one in each container's, which takes
// CAP_SYS_ADMIN; with it the meshproxy keeps that container's tables, which takes no more than the CAP_NET_ADMIN that it has.
// So the process that everybody can talk to need not be able to enter namespaces, nor see where they are. One frame is a
// verb, the length of an id, and the id; a socket goes along with the verb. Both directions of a connection have one user each.
package netpass

import (
	"errors"
	"io"
	"net"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
)

// Verb says what a frame is about.
type Verb byte

// The verbs. Agents say Have and Gone, meshproxies Ready and Gone.
const (
	Have  Verb = '+' // the container is about to run; the socket is in its namespace
	Gone  Verb = '-' // it has ended: let go of the socket, which keeps the namespace alive; the same is the answer when that is done
	Ready Verb = '=' // its tables are in force
)

// maxID is longer than any container's id.
const maxID = 255

// File is a socket that is handed over.
type File = os.File

// Frame is one message.
type Frame struct {
	Verb Verb
	ID   string
	// Socket comes with Have. Whoever receives it closes it.
	Socket *os.File
}

// Socket is where a meshproxy takes them, beside the socket on which it is asked.
func Socket(meshSocket string) string { return path.Join(path.Dir(meshSocket), "spaces.sock") }

// Send writes a frame. The socket stays the caller's.
func Send(conn net.Conn, f Frame) error {
	if len(f.ID) == 0 || len(f.ID) > maxID {
		return errs.New(errs.Invalid, "%q is no id of a container", f.ID)
	}
	data := append([]byte{byte(f.Verb), byte(len(f.ID))}, f.ID...)
	if f.Socket == nil {
		_, err := conn.Write(data)
		return err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return errs.New(errs.Invalid, "a socket can only be handed over on a unix socket")
	}
	n, _, err := u.WriteMsgUnix(data, unix.UnixRights(int(f.Socket.Fd())), nil)
	if err == nil && n < len(data) {
		_, err = u.Write(data[n:])
	}
	return err
}

// Receive reads the next frame; io.EOF at the end.
func Receive(conn net.Conn) (Frame, error) {
	head := make([]byte, 2)
	socket, err := readHead(conn, head)
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Verb: Verb(head[0]), Socket: socket}
	id := make([]byte, head[1])
	if _, err := io.ReadFull(conn, id); err != nil {
		return Frame{}, errors.Join(err, closeAll(socket))
	}
	f.ID = string(id)
	if f.ID == "" || (f.Verb == Have) != (socket != nil) {
		return Frame{}, errors.Join(errs.New(errs.Invalid, "a frame %q of container %q that makes no sense", f.Verb, f.ID), closeAll(socket))
	}
	return f, nil
}

// readHead reads the first two bytes, and the socket that came with the first of them.
func readHead(conn net.Conn, head []byte) (*os.File, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		_, err := io.ReadFull(conn, head)
		return nil, err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := u.ReadMsgUnix(head, oob)
	if errors.Is(err, io.EOF) || (err == nil && n == 0) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, err
	}
	socket, err := socketIn(oob[:oobn])
	if err == nil && n < len(head) {
		_, err = io.ReadFull(u, head[n:])
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(socket))
	}
	return socket, nil
}

func socketIn(oob []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "container"), nil
}

func closeAll(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
