// Package vm runs a machine as most real ones are: Debian with its own kernel, systemd as process 1 and the unified
// control group hierarchy alone, in a virtual machine by qemu and KVM. Tests run scripts there as root: they show what the
// laboratory cannot on a machine with another kernel or other control groups.
//
// A Machine has no network but one that ends in qemu, a disk of its own, and the folders of this machine that it is given,
// read-only; what it writes there stays in its memory. Close ends it, also after a crash of the caller: qemu dies with it.
// A Machine is for one goroutine at a time.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/shoalproject/shoal/test/vm/guest"
)

// bootLimit is how long a machine may take until systemd has started everything; playedLimit where qemu plays the processor.
const (
	bootLimit   = 2 * time.Minute
	playedLimit = 8 * time.Minute
)

// Options say what Boot makes.
type Options struct {
	Dir      string   // a folder of the machine's own, with a short name: a socket lies in it
	Cache    string   // where the image is kept
	Root     string   // the project
	Share    []string // folders of this machine that it sees in the same place
	Accel    string   // qemu's accelerator; kvm if empty
	MemoryMB int      // 3584 if 0
	Log      *slog.Logger
}

// Machine is a virtual machine that runs.
type Machine struct {
	opts    Options
	image   image
	disk    string
	process *exec.Cmd
	link    net.Conn
	talk    *guest.Conversation
	ended   chan struct{} // closed when qemu has ended; said holds its complaints then
	said    *bytes.Buffer
}

// Boot makes a machine and returns when its systemd says that it runs.
func Boot(ctx context.Context, opts Options) (*Machine, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Accel == "" {
		opts.Accel = "kvm"
	}
	if opts.MemoryMB == 0 {
		opts.MemoryMB = 3584
	}
	if err := checkMachine(opts.Accel); err != nil {
		return nil, err
	}
	image, err := ensureImage(ctx, opts.Cache, opts.Log)
	if err != nil {
		return nil, err
	}
	m := &Machine{opts: opts, image: image, disk: filepath.Join(opts.Dir, "disk")}
	if err := m.furnish(ctx); err != nil {
		return nil, err
	}
	return m, m.PowerOn(ctx)
}

// furnish makes what the machine needs to boot: a disk that is a copy of the image, and the inner end of the talk.
func (m *Machine) furnish(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(m.opts.Dir, "guest"), 0o755); err != nil {
		return err
	}
	if said, err := exec.CommandContext(ctx, "cp", "--sparse=always", m.image.root, m.disk).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the machine's disk: %w: %s", err, said)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(m.opts.Dir, "guest", "guest"), "./test/vm/guest/cmd/guest")
	build.Dir, build.Env = m.opts.Root, append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest's end: %w\n%s", err, said)
	}
	return nil
}

// PowerOn boots a machine that is off.
func (m *Machine) PowerOn(ctx context.Context) error {
	began := time.Now()
	limit := bootLimit
	if m.opts.Accel != "kvm" {
		limit = playedLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := m.start(ctx)
	if err == nil {
		err = m.booted(ctx)
	}
	if err != nil {
		off := m.PowerOff()
		return errors.Join(fmt.Errorf("boot the machine: %w; qemu says: %s; its console ends:\n%s", err, m.said, m.consoleTail()), off)
	}
	m.opts.Log.Info("the machine has booted", "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// start starts qemu, which calls us over a socket.
func (m *Machine) start(ctx context.Context) error {
	path := filepath.Join(m.opts.Dir, "port")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	defer listener.Close()
	m.said, m.ended = new(bytes.Buffer), make(chan struct{})
	m.process = exec.Command("qemu-system-"+qemuArch(), m.arguments(path)...)
	m.process.Stdout, m.process.Stderr = m.said, m.said
	m.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.process.Start(); err != nil {
		m.process = nil
		return err
	}
	// qemu calls before it runs the machine; one that refuses its arguments never calls.
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	go func(process *exec.Cmd, ended chan struct{}) {
		_ = process.Wait() // it tells on its outputs
		listener.Close()
		close(ended)
	}(m.process, m.ended)
	if m.link, err = listener.Accept(); err != nil {
		return err
	}
	m.talk = guest.NewConversation(m.link)
	return nil
}

// booted waits until systemd has started everything, and gives the machine its folders; a unit that failed is an error.
func (m *Machine) booted(ctx context.Context) error {
	said, err := m.Run(ctx, "systemctl is-system-running --wait || { systemctl --failed --no-legend --plain; false; }")
	if err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	for i, folder := range m.opts.Share {
		// What is written lies in memory, above what the machine outside has.
		const mount = `set -e
mkdir -p %[2]s /run/share/%[1]s/below /run/share/%[1]s/above
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose %[1]s /run/share/%[1]s/below
mount -t tmpfs -o size=90%% tmpfs /run/share/%[1]s/above
mkdir /run/share/%[1]s/above/upper /run/share/%[1]s/above/work
mount -t overlay -o lowerdir=/run/share/%[1]s/below,upperdir=/run/share/%[1]s/above/upper,workdir=/run/share/%[1]s/above/work overlay %[2]s`
		if said, err := m.Run(ctx, fmt.Sprintf(mount, tag(i), folder)); err != nil {
			return fmt.Errorf("share %s: %w: %s", folder, err, said)
		}
	}
	return nil
}

// Run runs a script by bash as root and returns what it printed, both outputs in one, without the last line's end. An exit
// code other than 0 is an error.
func (m *Machine) Run(ctx context.Context, script string) (string, error) {
	var output bytes.Buffer
	err := m.Pipe(ctx, script, &output)
	return strings.TrimSuffix(output.String(), "\n"), err
}

// Pipe is Run that copies what the script writes as it comes. When the context ends before the script the machine is of
// no more use.
func (m *Machine) Pipe(ctx context.Context, script string, output io.Writer) error {
	if m.link == nil {
		return errors.New("the machine is off")
	}
	link := m.link
	stop := context.AfterFunc(ctx, func() { link.Close() })
	defer stop()
	code, err := m.talk.Run(script, output)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("exit code %d", code)
	default:
		return nil
	}
}

// PowerOff cuts the machine's power: everything on it dies at once, what its disk was told to keep stays.
func (m *Machine) PowerOff() error {
	if m.process == nil {
		return nil
	}
	var fault error
	if m.link != nil {
		if err := m.link.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // an interrupted script's end closes it, too
			fault = err
		}
	}
	if err := m.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fault = errors.Join(fault, err)
	}
	<-m.ended
	m.link, m.process = nil, nil
	return fault
}

// Close ends the machine; what is in its folder is the caller's to remove.
func (m *Machine) Close() error { return m.PowerOff() }

func (m *Machine) consoleTail() string {
	text, err := os.ReadFile(filepath.Join(m.opts.Dir, "console"))
	if err != nil {
		return err.Error()
	}
	return tail(string(text), 15)
}
