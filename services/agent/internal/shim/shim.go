// Package shim asks containerd's shims, the processes that containers are children of, how their containers have ended, while
// containerd itself is away: when it is back, one from version 1.7 on ends the shims of what has ended meanwhile, and the exit codes are
// lost with them.
//
// It must never change anything: a shim is containerd's, and containerd would not know. Everything here may be called from
// several goroutines at once.
package shim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// Bundle is the folder in which the shim of a container's first process works, and where containerd has left how to reach it; empty where
// that is not known.
func Bundle(pid int64, id string) string {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.FormatInt(pid, 10), "stat"))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // the name before may hold anything
	if len(fields) < 2 {
		return ""
	}
	folder, err := os.Readlink(filepath.Join("/proc", fields[1], "cwd"))
	if err != nil || filepath.Base(folder) != id { // not its shim
		return ""
	}
	return folder
}

// place is how a shim is reached.
type place struct {
	Version  int    `json:"version"` // of what it speaks
	Address  string `json:"address"`
	Protocol string `json:"protocol"`
}

// read takes what containerd writes from 1.7 on, or what it wrote before.
func read(bundle string) (place, error) {
	p := place{Version: 2, Protocol: "ttrpc"}
	text, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if err == nil {
		return p, json.Unmarshal(text, &p)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	text, err = os.ReadFile(filepath.Join(bundle, "address"))
	p.Address = string(text)
	return p, err
}

// Wait blocks until a container's first process has ended, and tells its exit code. It is an error when its shim can't be asked, or
// has gone.
func Wait(ctx context.Context, bundle, id string) (code int32, err error) {
	p, err := read(bundle)
	if err != nil {
		return 0, err
	}
	path, ok := strings.CutPrefix(p.Address, "unix://")
	if !ok || p.Protocol != "ttrpc" {
		return 0, fmt.Errorf("a shim speaks %s at %s", p.Protocol, p.Address)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	switch p.Version {
	case 2:
		r, err := taskv2.NewTTRPCTaskClient(client).Wait(ctx, &taskv2.WaitRequest{ID: id})
		return int32(r.GetExitStatus()), err
	case 3:
		r, err := taskv3.NewTTRPCTaskClient(client).Wait(ctx, &taskv3.WaitRequest{ID: id})
		return int32(r.GetExitStatus()), err
	}
	return 0, fmt.Errorf("a shim speaks version %d", p.Version)
}
