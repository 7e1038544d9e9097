package kernel

import (
	"fmt"
	"net"
	"os"
	"strings"

	known "github.com/containerd/containerd/v2/pkg/cap"
	"golang.org/x/sys/unix"
)

// peer is who listens on a unix socket. Zero: a process that this one cannot see, since it is in a container of its own.
func peer(socket string) (pid int32, err error) {
	conn, err := net.Dial("unix", socket) //nolint:noctx // of this machine, and gone at once
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%s is no unix socket", socket)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) {
		credentials, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || asked != nil {
		return 0, fmt.Errorf("ask who listens on %s: %w, %w", socket, err, asked)
	}
	return credentials.Pid, nil
}

// Grantable are the capabilities that a container can have: containerd's, which starts it, and not the agent's, which has few
// where it runs as a service. Of a containerd that can't be seen all are taken that there are.
func Grantable(socket string) []string {
	pid, err := peer(socket)
	if err != nil || pid == 0 {
		return known.Known()
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return known.Known()
	}
	defer f.Close()
	sets, err := known.ParseProcPIDStatus(f)
	if err != nil {
		return known.Known()
	}
	names, _ := known.FromBitmap(sets[known.Bounding])
	return upper(names)
}

func upper(names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, strings.ToUpper(n))
	}
	return out
}

// Apart says whether this process, which talks to containerd by the socket, is in a container of its own, and so does not see the
// machine's files.
func Apart(socket string) bool {
	pid, err := peer(socket)
	return err == nil && pid == 0
}
