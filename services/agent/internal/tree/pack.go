// Package tree is the file system of a running container, as people copy files into it and out of it.
//
// It owns what is safe there: every path is resolved by the kernel inside the container (openat2, RESOLVE_IN_ROOT), so no
// link leads out, even one that the container changes meanwhile; no device, no set-user-id, and bounds on every copy. It must
// never know whose container it is. Owners are those that the container sees. A Tree is for one copy.
package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

const (
	// maxCopyBytes and maxCopyEntries bound one copy, either way.
	maxCopyBytes, maxCopyEntries = 64 << 30, 1_000_000
	// maxDepth bounds folders in folders: each is an open file while it is walked.
	maxDepth = 200
	// modeBits are those of a copied file: never set-user-id, which a person can add inside.
	modeBits = 0o1777
)

// Tree is the file system of one container, volumes and all, as its first process sees it.
type Tree struct {
	root int
	ids  container.IDs
}

// Of opens that of a process in a control group. Precondition: it has ended, also when its number is another one's by now.
func Of(pid int, group string) (*Tree, error) {
	gone := errs.New(errs.Precondition, "the container has just ended")
	// All is asked of one handle, which is the process's own however its number is used later.
	proc, err := unix.Open(fmt.Sprintf("/proc/%d", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("find the container's process: %w", err)
	}
	defer unix.Close(proc)
	in, err := told(proc, "cgroup")
	if err == nil && !strings.Contains(in+"\n", group+"\n") && !strings.Contains(in, group+"/") {
		return nil, gone
	}
	fd := -1
	if err == nil {
		fd, err = unix.Openat(proc, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's file system: %w", err)
	}
	ids, err := told(proc, "uid_map")
	if err != nil {
		return nil, errors.Join(gone, unix.Close(fd))
	}
	return &Tree{root: fd, ids: userns.Range(ids)}, nil
}

// told is what proc(5) says of a process.
func told(proc int, file string) (string, error) {
	fd, err := unix.Openat(proc, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	raw, err := io.ReadAll(f)
	return string(raw), err
}

// Close lets go of it.
func (t *Tree) Close() error { return unix.Close(t.root) }

// open opens a path. The name is for the error.
func (t *Tree) open(name string, flags int) (int, error) {
	fd, err := unix.Openat2(t.root, name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	return fd, fileFailure(name, err)
}

// fileFailure tells a person what is wrong with a path.
func fileFailure(name string, err error) error {
	if _, told := errors.AsType[*errs.Error](err); told {
		return err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return errs.New(errs.NotFound, "the container has no %s", name)
	case errors.Is(err, unix.ENOTDIR):
		return errs.New(errs.Invalid, "%s: a part of it is no directory", name)
	case errors.Is(err, unix.EROFS):
		return errs.New(errs.Precondition, "%s lies on a read-only file system", name)
	case errors.Is(err, unix.ENOSPC):
		return errs.New(errs.Exhausted, "%s: no space left", name)
	}
	return errs.New(errs.Precondition, "%s: %s", name, err)
}

// budget counts a copy against its bounds.
type budget struct{ entries, bytes uint64 }

func (b *budget) entry(size int64) error {
	b.entries++
	b.bytes += uint64(max(size, 0))
	if b.entries > maxCopyEntries || b.bytes > maxCopyBytes {
		return errs.New(errs.Exhausted, "more than %d files or %d GiB in one copy", maxCopyEntries, maxCopyBytes>>30)
	}
	return nil
}

// Pack writes an archive of a path, under its last name. Found is called before. Sockets, pipes and devices are left out.
func (t *Tree) Pack(ctx context.Context, g *logsv1.CopyGet, found func(*logsv1.CopyStat) error, archive io.Writer) error {
	name := path.Clean(g.GetPath())
	// The parent is resolved, and then the last name, so that a link there can be told from what it leads to.
	dir, base := path.Split(name)
	if g.GetFollow() || base == "" {
		dir, base = name, "."
	}
	parent, err := t.open(dir, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	p := &packer{ctx: ctx, ids: t.ids, out: tar.NewWriter(archive)}
	e, err := handleOf(parent, base)
	if err != nil {
		return fileFailure(name, err)
	}
	defer e.close()
	top := path.Base(name)
	if top == "/" {
		top = "."
	}
	if err := found(&logsv1.CopyStat{Name: top, Dir: e.kind() == unix.S_IFDIR}); err != nil {
		return err
	}
	if err := p.add(e, top, 0); err != nil {
		return err
	}
	return p.out.Close()
}

// handle is a file as it was found. It stays that file, whatever the container puts in its place: what is read is what was
// looked at, never a device or a pipe that was swapped in.
type handle struct {
	fd int
	st unix.Stat_t
}

func handleOf(dir int, base string) (e *handle, err error) {
	e = &handle{}
	e.fd, err = unix.Openat2(dir, base, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(e.fd, &e.st); err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

func (e *handle) close() { _ = unix.Close(e.fd) }

func (e *handle) kind() uint32 { return e.st.Mode & unix.S_IFMT }

// read opens the very file for reading.
func (e *handle) read(name string) (*os.File, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", e.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fileFailure(name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// packer writes an archive.
type packer struct {
	ctx   context.Context //nolint:containedctx // of one call of Pack
	ids   container.IDs
	out   *tar.Writer
	count budget
}

// add writes one entry, and what lies below it.
func (p *packer) add(e *handle, name string, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return errs.New(errs.Exhausted, "%s: more than %d directories deep", name, maxDepth)
	}
	h := &tar.Header{
		Name: name, Mode: int64(e.st.Mode & 0o7777), Uid: int(p.ids.Inside(e.st.Uid)), Gid: int(p.ids.Inside(e.st.Gid)), Format: tar.FormatPAX,
		ModTime: time.Unix(e.st.Mtim.Sec, e.st.Mtim.Nsec),
	}
	switch e.kind() {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := p.head(h); err != nil {
			return err
		}
		return p.folder(e, name, depth)
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, e.st.Size
		return p.file(e, h)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(e.fd, "", target)
		if err != nil {
			return fileFailure(name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(target[:n])
		return p.head(h)
	}
	return nil
}

func (p *packer) head(h *tar.Header) error {
	if err := p.count.entry(h.Size); err != nil {
		return err
	}
	return p.out.WriteHeader(h)
}

func (p *packer) folder(e *handle, name string, depth int) error {
	f, err := e.read(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1000)
		for _, n := range names {
			if err := p.below(f, n, path.Join(name, n), depth+1); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fileFailure(name, err)
		}
	}
}

func (p *packer) below(dir *os.File, base, name string, depth int) error {
	e, err := handleOf(int(dir.Fd()), base)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fileFailure(name, err)
	}
	defer e.close()
	return p.add(e, name, depth)
}

// file writes as many bytes as its header says: a file that grows is cut, one that shrinks is an error.
func (p *packer) file(e *handle, h *tar.Header) error {
	f, err := e.read(h.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.head(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.out, f, h.Size)
	if errors.Is(err, io.EOF) {
		return errs.New(errs.Conflict, "%s became shorter while it was copied (%d of %d bytes)", h.Name, n, h.Size)
	}
	return err
}
