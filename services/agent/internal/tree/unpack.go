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

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/internal/errs"
	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

// Unpack unpacks an archive in an existing directory. What is there is replaced, but a directory by a file. Without owners all
// belongs to whom the directory belongs to.
func (t *Tree) Unpack(ctx context.Context, put *logsv1.CopyPut, archive io.Reader) (done *logsv1.CopyDone, err error) {
	err = userns.As(t.ids, func() (err error) {
		done, err = t.unpack(ctx, put, archive)
		return err
	})
	return done, err
}

func (t *Tree) unpack(ctx context.Context, put *logsv1.CopyPut, archive io.Reader) (*logsv1.CopyDone, error) {
	dir := path.Clean(put.GetDir())
	top, err := t.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(top)
	u := &unpacking{Tree: t, dir: dir, owners: put.GetOwners()}
	if err := unix.Fstat(top, &u.owner); err != nil {
		return nil, fileFailure(dir, err)
	}
	for in := tar.NewReader(archive); ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return &logsv1.CopyDone{Entries: u.count.entries, Bytes: u.count.bytes}, nil
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "the archive can't be read: %w", err)
		}
		if err := u.entry(h, in); err != nil {
			return nil, err
		}
	}
}

// unpacking is one archive on its way into a container.
type unpacking struct {
	*Tree
	dir    string
	owners bool
	owner  unix.Stat_t // of the directory
	count  budget
}

// entry makes one. Its name is taken below the directory, whatever it says.
func (u *unpacking) entry(h *tar.Header, content io.Reader) error {
	if err := u.count.entry(h.Size); err != nil {
		return err
	}
	rel := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if rel == "" {
		return nil // the directory itself, which is there
	}
	if strings.Count(rel, "/") > maxDepth {
		return errs.New(errs.Exhausted, "%s: more than %d directories deep", h.Name, maxDepth)
	}
	parent, err := u.parent(path.Dir(rel))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	base := path.Base(rel)
	switch h.Typeflag {
	case tar.TypeDir:
		err = u.folder(parent, base, h)
	case tar.TypeReg:
		err = u.file(parent, base, h, content)
	case tar.TypeSymlink:
		if err = vacate(parent, base); err == nil {
			err = unix.Symlinkat(h.Linkname, parent, base)
		}
		if err == nil {
			var uid, gid int
			if uid, gid, err = u.ownerOf(h); err == nil {
				err = u.own(parent, base, unix.S_IFLNK, uid, gid)
			}
		}
	case tar.TypeLink:
		err = u.link(parent, base, h)
	case tar.TypeXGlobalHeader:
	default:
		return errs.New(errs.Invalid, "%s is neither file, directory nor link; leave it out of the archive", h.Name)
	}
	return fileFailure(path.Join(u.dir, rel), err)
}

// parent opens the directory of an entry. Those that the archive does not name are made.
func (u *unpacking) parent(rel string) (int, error) {
	name := path.Join(u.dir, rel)
	fd, err := u.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errs.Is(err, errs.NotFound) || rel == "." {
		return fd, err
	}
	above, err := u.parent(path.Dir(rel))
	if err != nil {
		return -1, err
	}
	defer unix.Close(above)
	if err := unix.Mkdirat(above, path.Base(rel), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, fileFailure(name, err)
	}
	if err := u.own(above, path.Base(rel), unix.S_IFDIR, int(u.owner.Uid), int(u.owner.Gid)); err != nil {
		return -1, fileFailure(name, err)
	}
	return u.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

// ownerOf is on the machine. Invalid: the container has no such user or group.
func (u *unpacking) ownerOf(h *tar.Header) (uid, gid int, err error) {
	if !u.owners {
		return int(u.owner.Uid), int(u.owner.Gid), nil
	}
	if !u.ids.Mapped() {
		return h.Uid, h.Gid, nil
	}
	user, wrong := u.ids.Outside(uint32(max(h.Uid, 0)))
	group, err := u.ids.Outside(uint32(max(h.Gid, 0)))
	return int(user), int(group), errors.Join(wrong, err)
}

func (u *unpacking) folder(parent int, base string, h *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		// A link to a directory is as good as one, if it leads to one inside the container.
		fd, err := u.open(path.Join(u.dir, strings.TrimPrefix(path.Clean("/"+h.Name), "/")), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return unix.EEXIST
		}
		return unix.Close(fd) // it stays as it is
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.dress(fd, h)
}

func (u *unpacking) file(parent int, base string, h *tar.Header, content io.Reader) (err error) {
	if err := vacate(parent, base); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.CopyN(f, content, h.Size); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errs.New(errs.Invalid, "the archive ends inside a file")
		}
		return err
	}
	if err := u.dress(fd, h); err != nil {
		return err
	}
	at := unix.NsecToTimespec(h.ModTime.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), []unix.Timespec{at, at}, 0)
}

// own gives what was just made its owner, unless something else has taken its place: what is chosen by name may be another's.
func (u *unpacking) own(parent int, base string, kind uint32, uid, gid int) error {
	e, err := handleOf(parent, base)
	if err != nil {
		return err
	}
	defer e.close()
	if e.kind() != kind || e.st.Uid != u.maker() {
		return errs.New(errs.Conflict, "%s was replaced while it was made", base)
	}
	return unix.Fchownat(e.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// maker is to whom belongs what is made.
func (u *unpacking) maker() uint32 {
	if u.ids.Mapped() {
		return u.ids.First
	}
	return uint32(os.Geteuid())
}

// dress gives a new file its owner, and then its mode, which a change of owner may take from.
func (u *unpacking) dress(fd int, h *tar.Header) error {
	uid, gid, err := u.ownerOf(h)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, uint32(h.Mode)&modeBits)
}

// link makes a second name of an entry that came before.
func (u *unpacking) link(parent int, base string, h *tar.Header) error {
	old := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
	from, err := u.open(path.Join(u.dir, path.Dir(old)), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	if err := vacate(parent, base); err != nil {
		return err
	}
	return unix.Linkat(from, path.Base(old), parent, base, 0)
}

// vacate removes what is there, unless it is a directory.
func vacate(parent int, base string) error {
	err := unix.Unlinkat(parent, base, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
