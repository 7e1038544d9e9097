// Package hostinit is process 1 of a lab host: it builds the host's view of the file system, names the machine, runs
// the host's units (containerd and the shoal processes) the way systemd would, and reaps every orphan.
//
// It must never change anything outside its own namespaces and its host's folder. The supervisor's state has one
// mutex; everything else is written once at boot.
package hostinit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/lan"
)

// Machine is all that an init needs to know about its host. The keeper hands it over as JSON.
type Machine struct {
	Name      string         `json:"name"`
	Dir       string         `json:"dir"`       // the host's folder on the outer machine
	Shims     string         `json:"shims"`     // folder with the host's systemctl, first on its PATH
	Bin       string         `json:"bin"`       // folder with the shoal binaries
	Disk      string         `json:"disk"`      // file with a file system for the data folders, or empty
	Addresses []netip.Prefix `json:"addresses"` // of eth0
	Peers     []Peer         `json:"peers"`     // for /etc/hosts

	Containerd string `json:"containerd"` // folder of a containerd and a shim that it has in place of the outer machine's, or empty
}

// Peer is a line of /etc/hosts.
type Peer struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// Env is the environment of everything that runs on a host.
func (m Machine) Env() []string {
	return []string{
		"PATH=" + m.Shims + ":" + m.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash", "LANG=C.UTF-8",
	}
}

// Files that the keeper passes to the init.
const (
	MachineFile = 3 // the Machine as JSON; it ends when the host's cable is in place
	ReportFile  = 4 // the boot's outcome: a line "ok", or what went wrong
)

// Run boots the host and serves until it is killed: a host has no orderly end but its power switch. ctx must not end by
// a signal.
func Run(ctx context.Context, log *slog.Logger) error {
	report := os.NewFile(ReportFile, "report")
	machine, supervisor, err := boot(os.NewFile(MachineFile, "machine"), log)
	if err != nil {
		fmt.Fprintln(report, err)
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return supervisor.reap(ctx) })
	group.Go(func() error { return supervisor.serve(ctx) })
	group.Go(func() error {
		supervisor.startEnabled()
		log.Info("host is up", "host", machine.Name)
		fmt.Fprintln(report, "ok")
		return report.Close()
	})
	return group.Wait()
}

func boot(handover *os.File, log *slog.Logger) (Machine, *Supervisor, error) {
	// A signal of the outer machine ends an init only if it is SIGKILL, which is what a power cut is. The others are
	// caught and dropped, not ignored: units would inherit that, and a stop would be lost on them.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	unix.CloseOnExec(MachineFile)
	unix.CloseOnExec(ReportFile)
	text, err := io.ReadAll(handover)
	if err != nil {
		return Machine{}, nil, fmt.Errorf("read the machine's description: %w", err)
	}
	var machine Machine
	if err := json.Unmarshal(text, &machine); err != nil {
		return Machine{}, nil, fmt.Errorf("read the machine's description: %w", err)
	}
	// Step 1: the file system, before anything can be written to the outer machine's folders.
	if err := mountAll(machine); err != nil {
		return Machine{}, nil, err
	}
	// Step 2: name and addresses, which units read when they start.
	if err := unix.Sethostname([]byte(machine.Name)); err != nil {
		return Machine{}, nil, fmt.Errorf("set the host's name: %w", err)
	}
	if err := lan.Configure(machine.Addresses); err != nil {
		return Machine{}, nil, err
	}
	for _, entry := range machine.Env() {
		name, value, _ := strings.Cut(entry, "=")
		if err := os.Setenv(name, value); err != nil {
			return Machine{}, nil, err
		}
	}
	// Step 3: the supervisor; its units start once it can reap and answer.
	supervisor, err := newSupervisor(machine, log)
	if err != nil {
		return Machine{}, nil, fmt.Errorf("start the supervisor: %w", err)
	}
	return machine, supervisor, nil
}
