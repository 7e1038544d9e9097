// Package system is the operating system as package machine sees it: programs, addresses, users, folders.
//
// It decides nothing and keeps nothing; each call asks anew.
package system

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/cli/internal/doctor"
)

// Machine is the one that this process runs on.
type Machine struct{}

// Find looks beside shoal's own program first, so that programs of one build work together.
func (Machine) Find(name string) (string, error) {
	if own, err := os.Executable(); err == nil && strings.HasPrefix(name, "shoal-") {
		beside := filepath.Join(filepath.Dir(own), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}

// Run waits for a program. Its standard output is returned, its standard error is part of the error.
func (Machine) Run(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	var out, said bytes.Buffer
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	if err == nil {
		return out.String(), nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	text := strings.TrimSpace(said.String())
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && text != "" {
		return out.String(), fmt.Errorf("%s (exit code %d)", text, exit.ExitCode())
	}
	return out.String(), fmt.Errorf("%s: %w", filepath.Base(name), err)
}

// Privileged says whether this is root.
func (Machine) Privileged() bool { return os.Geteuid() == 0 }

// Addresses are those of all interfaces.
func (Machine) Addresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, prefix.Addr().Unmap())
		}
	}
	return out, nil
}

// Source asks the kernel's routes. Nothing is sent.
func (Machine) Source(ctx context.Context, hostport string) (netip.Addr, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", hostport)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	at, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return at.Addr().WithZone(""), err
}

// RemoveAll deletes a folder and all below it, unless something is mounted below: that is kept elsewhere, and is not shoal's to delete.
func (Machine) RemoveAll(path string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for what is mounted below %s: %w", path, err)
	}
	folder, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(unescaped(f[4]), folder+"/") {
			return fmt.Errorf("%s is mounted; run `umount %[1]s` and repeat", unescaped(f[4]))
		}
	}
	return os.RemoveAll(path)
}

// unescaped is a path of mountinfo, which has blanks and the like in octal (proc_pid_mountinfo(5)).
func unescaped(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// Space asks the nearest folder that is there.
func (Machine) Space(path string) (doctor.Space, error) {
	for {
		var s unix.Statfs_t
		err := unix.Statfs(path, &s)
		if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
			path = filepath.Dir(path)
			continue
		}
		space := doctor.Space{Bytes: s.Bavail * uint64(s.Bsize), Files: s.Ffree}
		if s.Files == 0 { // a file system that does not count them
			space.Files = math.MaxUint64
		}
		return space, err
	}
}

// OpenFiles is the hard limit of this process, which the units' is unless they say else.
func (Machine) OpenFiles() (uint64, error) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return limit.Max, err
}

// Lookup asks as every program does.
func (Machine) Lookup(ctx context.Context, host string) ([]string, error) {
	return net.DefaultResolver.LookupHost(ctx, host)
}

// Account reads the machine's list of users.
func (Machine) Account(name string) (uid, gid int, ok bool) {
	account, err := user.Lookup(name)
	if err != nil {
		return 0, 0, false
	}
	uid, uidErr := strconv.Atoi(account.Uid)
	gid, gidErr := strconv.Atoi(account.Gid)
	return uid, gid, uidErr == nil && gidErr == nil
}

// Owner is whose a file or folder is.
func (Machine) Owner(path string) (uid, gid int, err error) {
	var s unix.Stat_t
	if err := unix.Lstat(path, &s); err != nil {
		return 0, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return int(s.Uid), int(s.Gid), nil
}

// Folder makes one, with the mode whatever the person's umask.
func (Machine) Folder(path string, mode fs.FileMode) (made bool, err error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), mode); err != nil {
		return false, err
	}
	if err := os.Mkdir(path, mode); err != nil {
		return false, err
	}
	return true, os.Chmod(path, mode)
}

const privateMode = fs.FileMode(0o700)

// Give works below a root that is held open, and follows no link: one that leads out of the folder must not give away what it
// leads to. A folder is then for its owner alone, whoever made it: Docker makes those that it mounts for everybody to read.
func (Machine) Give(name string, uid, gid int) error {
	if err := os.Lchown(name, uid, gid); err != nil {
		return err
	}
	if info, err := os.Lstat(name); err != nil || !info.IsDir() {
		return err
	}
	root, err := os.OpenRoot(name)
	if err != nil {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(below string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return root.Lchown(below, uid, gid)
	})
	return errors.Join(err, root.Chmod(".", privateMode), root.Close())
}
