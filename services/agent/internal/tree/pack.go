// Package tree is the file system of a running container, as people copy files into it and out of it.
//
// It owns what is safe there: every path is resolved by the kernel inside the container (openat2, RESOLVE_IN_ROOT), so no
// link leads out, even one that the container changes meanwhile; no device, no set-user-id, and bounds on every copy. It must
// never know whose container it is. A Tree is for one copy.
package tree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
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
type Tree struct{ root int }

// Of opens that of a process. Precondition: it has ended.
func Of(pid int) (*Tree, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, errs.New(errs.Precondition, "the container has just ended")
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's file system: %w", err)
	}
	return &Tree{root: fd}, nil
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
	p := &packer{ctx: ctx, out: tar.NewWriter(archive)}
	var st unix.Stat_t
	if base == "." {
		err = unix.Fstat(parent, &st)
	} else {
		err = unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return fileFailure(name, err)
	}
	top := path.Base(name)
	if top == "/" {
		top = "."
	}
	if err := found(&logsv1.CopyStat{Name: top, Dir: st.Mode&unix.S_IFMT == unix.S_IFDIR}); err != nil {
		return err
	}
	if err := p.add(parent, base, top, &st, 0); err != nil {
		return err
	}
	return p.out.Close()
}

// packer writes an archive.
type packer struct {
	ctx   context.Context //nolint:containedctx // of one call of Pack
	out   *tar.Writer
	count budget
}

// add writes one entry of a directory, and what lies below it. Base "." is the directory's file itself.
func (p *packer) add(dir int, base, name string, st *unix.Stat_t, depth int) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return errs.New(errs.Exhausted, "%s: more than %d directories deep", name, maxDepth)
	}
	h := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if err := p.head(h); err != nil {
			return err
		}
		return p.folder(dir, base, name, depth)
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		return p.file(dir, base, h)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, base, target)
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

// reopen opens what was looked at, without following a link that has taken its place meanwhile.
func reopen(dir int, base string, flags int) (*os.File, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if base == "." { // dir is an O_PATH handle of the file itself
		fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", dir), flags&^unix.O_NOFOLLOW, 0)
		return os.NewFile(uintptr(fd), base), err
	}
	fd, err := unix.Openat(dir, base, flags, 0)
	return os.NewFile(uintptr(fd), base), err
}

func (p *packer) folder(dir int, base, name string, depth int) error {
	f, err := reopen(dir, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return fileFailure(name, err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(1000)
		for _, n := range names {
			var st unix.Stat_t
			if err := unix.Fstatat(int(f.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				continue // removed meanwhile
			}
			if err := p.add(int(f.Fd()), n, path.Join(name, n), &st, depth+1); err != nil {
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

// file writes as many bytes as its header says: a file that grows is cut, one that shrinks is an error.
func (p *packer) file(dir int, base string, h *tar.Header) error {
	f, err := reopen(dir, base, unix.O_RDONLY)
	if err != nil {
		return fileFailure(h.Name, err)
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
