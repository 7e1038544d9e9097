package harness_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/harness"
)

// TestMain makes the test binary play the processes that run on the lab's hosts, by the name that it is called by: the
// real ones are not this package's business.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "shoal-agent":
		exitWith(playAgent())
	case "shoal-gateway":
		exitWith(playEcho())
	case "shoal-ca":
		exitWith(errors.New("this one never gets ready"))
	}
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func notifyReady() error {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1\nSTATUS=playing"))
	return err
}

// playAgent is a process that gets ready and ends by SIGTERM.
func playAgent() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("agent starts with", os.Args[1:])
	if err := notifyReady(); err != nil {
		return err
	}
	<-ctx.Done()
	fmt.Println("agent stops")
	return nil
}

// playEcho answers on port 9000, on IPv4 and IPv6.
func playEcho() error {
	listener, err := net.Listen("tcp", ":9000")
	if err != nil {
		return err
	}
	if err := notifyReady(); err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_, _ = io.Copy(conn, conn)
		}()
	}
}

// dial succeeds if an echo comes back.
func dial(address string) error {
	conn, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// program makes a bin folder: a fresh shoal-lab and the processes that this binary plays.
func program(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a lab needs root")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	built := filepath.Join(root, "bin", "shoal-lab")
	run(t, "go", "build", "-o", built, "./cmd/shoal-lab")
	run(t, built, "images")

	bin := t.TempDir()
	run(t, "cp", built, filepath.Join(bin, "shoal-lab"))
	if err := os.Symlink(filepath.Join(root, "bin", "images"), filepath.Join(bin, "images")); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"shoal-agent", "shoal-gateway", "shoal-ca"} {
		run(t, "cp", self, filepath.Join(bin, name))
	}
	// This one tells which signals a unit's process inherits as ignored.
	script := "#!/bin/sh\ngrep SigIgn /proc/self/status\nexit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "shoal-store"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(bin, "shoal-lab")
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if said, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, said)
	}
}

// up makes a bare lab that is gone when the test ends.
func up(t *testing.T, program string, managers, workers int) *harness.Lab {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "shoal-lab-test-")
	if err != nil {
		t.Fatal(err)
	}
	lab, err := harness.Up(t.Context(), harness.Options{
		Dir: dir, Managers: managers, Workers: workers, NoInit: true, Program: program,
	})
	t.Cleanup(func() {
		if err := harness.DownDir(dir, program); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return lab
}

// eventually waits for a condition, looking at it again at each tick.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-end:
			t.Fatalf("not within %s: %s", limit, what)
		case <-tick.C:
		}
	}
}

// on runs a command on a host and fails the test unless its exit code is the expected one.
func on(t *testing.T, lab *harness.Lab, want int, host string, args ...string) string {
	t.Helper()
	stdout, stderr, code, err := lab.Exec(t.Context(), host, args...)
	if err != nil {
		t.Fatal(err)
	}
	if code != want {
		t.Fatalf("%v on %s: exit code %d, want %d\n%s%s", args, host, code, want, stdout, stderr)
	}
	return stdout
}

// do fails the test if an operation on the lab failed.
func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
