package run

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A client that comes while the process is replaced is not refused: the init system holds the listener, and the next process
// takes it over with the client in its queue. What it does not listen on again is given up.
func TestSocketsOutliveTheProcess(t *testing.T) {
	if os.Getenv("TEST_ADDRESS") != "" {
		answerOnce()
		return
	}
	path := filepath.Join(t.TempDir(), "notify")
	init, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer init.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()

	first := child(t, path, address, nil)
	state, listener := notified(t, init)
	if want := "FDSTORE=1\nFDPOLL=0\nFDNAME=" + socketName("tcp", address); state != want || listener == nil {
		t.Fatalf("the init system was told %q with file %v, want %q", state, listener, want)
	}
	if got := ask(t, address); got != "process 1" {
		t.Fatalf("answered %q", got)
	}
	if err := first.Wait(); err != nil {
		t.Fatal(err)
	}
	// Nobody runs; the client waits in the queue.
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatalf("refused while no process runs: %v", err)
	}
	defer conn.Close()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unclaimed, err := other.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	second := child(t, path, address, []*os.File{listener, unclaimed})
	if got := read(t, conn); got != "process 2" {
		t.Errorf("answered %q", got)
	}
	if err := second.Wait(); err != nil {
		t.Fatal(err)
	}
	if state, _ := notified(t, init); state != "FDSTOREREMOVE=1\nFDNAME=tcp-other" {
		t.Errorf("the init system was told %q of a listener that nobody asked for", state)
	}
}

// child starts this test again as a process that listens on the address and answers one client.
func child(t *testing.T, notify, address string, files []*os.File) *exec.Cmd {
	t.Helper()
	names := strings.Join([]string{socketName("tcp", address), "tcp-other"}[:len(files)], ":")
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run TestSocketsOutliveTheProcess`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "TEST_ADDRESS="+address,
		fmt.Sprintf("LISTEN_FDS=%d", len(files)), "LISTEN_FDNAMES="+names, fmt.Sprintf("TEST_PROCESS=%d", 1+len(files)/2))
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func answerOnce() {
	network := KeepSockets(machineNetwork{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l, err := network.Listen(ctx, "tcp", os.Getenv("TEST_ADDRESS"))
	if err == nil {
		err = DropUnclaimed(network)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	conn, err := l.Accept()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	_, _ = fmt.Fprintf(conn, "process %s", os.Getenv("TEST_PROCESS")) // the parent sees what is missing
	conn.Close()
	os.Exit(0)
}

// notified takes one message to the init system, and the file that came with it.
func notified(t *testing.T, init *net.UnixConn) (state string, file *os.File) {
	t.Helper()
	_ = init.SetReadDeadline(time.Now().Add(10 * time.Second))
	text, rights := make([]byte, 4096), make([]byte, 256)
	n, m, _, _, err := init.ReadMsgUnix(text, rights)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		fds, err := unix.ParseUnixRights(&message)
		if err != nil || len(fds) != 1 {
			t.Fatalf("files %v: %v", fds, err)
		}
		file = os.NewFile(uintptr(fds[0]), "kept")
	}
	return string(text[:n]), file
}

func ask(t *testing.T, address string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return read(t, conn)
}

func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// Files for another process are nobody's business here.
func TestInheritedFilesAreOfThisProcessAlone(t *testing.T) {
	env := map[string]string{"LISTEN_FDS": "2", "LISTEN_PID": "17", "LISTEN_FDNAMES": "a:b"}
	if got := inherit(func(name string) string { return env[name] }, 18); !cmp.Equal(len(got), 0) {
		t.Errorf("took %v", got)
	}
}
