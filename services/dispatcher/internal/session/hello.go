package session

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
)

const (
	// helloTimeout bounds the wait for a stream's first message.
	helloTimeout   = 5 * time.Second
	maxBootID      = 64
	maxAddresses   = 16
	maxAddress     = 253
	maxPort        = 65535
	maxDescription = 64 << 10 // bytes; it is in every watcher's memory
)

func receiveHello(l *line) (*dispatcherv1.Hello, error) {
	patience := time.AfterFunc(helloTimeout, func() { l.end(errs.New(errs.Invalid, "no hello within %s", helloTimeout)) })
	first, err := l.stream.Recv()
	patience.Stop()
	if err != nil {
		return nil, err
	}
	if h := first.GetHello(); h != nil {
		return h, nil
	}
	return nil, errs.New(errs.Invalid, "the first message of a session must be a hello")
}

// checkHello names all faults at once. What it lets through is told to every machine.
func checkHello(role authzv1.Role, h *dispatcherv1.Hello) error {
	var c errs.Collector
	c.Check(h.GetBootId() != "" && len(h.GetBootId()) <= maxBootID, "hello.boot_id", "must be 1 to %d characters", maxBootID)
	c.Check(len(h.GetAddresses()) > 0 && len(h.GetAddresses()) <= maxAddresses, "hello.addresses", "must be 1 to %d", maxAddresses)
	for i, a := range h.GetAddresses() {
		c.Check(a != "" && len(a) <= maxAddress, fmt.Sprintf("hello.addresses[%d]", i), "must be 1 to %d characters", maxAddress)
	}
	c.Check(len(h.GetVteps()) <= maxAddresses, "hello.vteps", "must be at most %d", maxAddresses)
	c.Check(h.GetMeshPort() <= maxPort, "hello.mesh_port", "%d is no port", h.GetMeshPort())
	c.Check(proto.Size(h.GetDescription()) <= maxDescription, "hello.description", "must be at most %d bytes", maxDescription)
	want := dispatcherv1.SessionKind_SESSION_KIND_NODE
	if role == authzv1.Role_ROLE_MESHPROXY {
		want = dispatcherv1.SessionKind_SESSION_KIND_INGRESS
	}
	c.Check(h.GetKind() == want, "hello.kind", "is not this role's: want %s", want)
	return c.Err("open session")
}
