// Package directory is where the other processes are: the members by role with their addresses, as the last answer of a CA,
// dispatcher or store told, kept on disk, so that a restart starts from it.
//
// It never forgets the last known members of a role for an empty answer: an address that may be dead is worth more than
// none. It dials nothing. A Directory is safe for concurrent use; what it returns must not be changed.
package directory

import (
	"cmp"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

// Directory is the list of members, and its copy on disk.
type Directory struct {
	files run.Files
	path  string

	mu      sync.Mutex // guards all below; not held while the disk is written
	current *cav1.Directory
	changed chan struct{} // closed when current is replaced
}

// New reads the copy at path, if there is one. An unreadable one is an error of kind Invalid.
func New(files run.Files, path string) (*Directory, error) {
	d := &Directory{files: files, path: path, current: &cav1.Directory{}, changed: make(chan struct{})}
	data, err := files.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, errs.New(errs.Unavailable, "read the member directory %s: %w", path, err)
	}
	// Unknown fields are a newer version's: this one may have been put back.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, d.current); err != nil {
		return nil, errs.New(errs.Invalid, "member directory %s: %w; remove the file, or join again", path, err)
	}
	return d, nil
}

// Write puts a directory where New finds it.
func Write(files run.Files, path string, dir *cav1.Directory) error {
	data, err := protojson.MarshalOptions{Multiline: true}.Marshal(dir)
	if err != nil {
		return errs.New(errs.Internal, "member directory: %w", err)
	}
	return files.Write(path, data, 0o644)
}

// Set takes a newer list. Roles of which it names nobody keep their last known members. A list that could not be written
// is in force nevertheless, and the error says so.
func (d *Directory) Set(next *cav1.Directory) error {
	merged := d.replace(next)
	if merged == nil {
		return nil
	}
	if err := Write(d.files, d.path, merged); err != nil {
		return errs.New(errs.Unavailable, "keep the member directory: %w", err)
	}
	return nil
}

// replace returns what is in force now, nil if nothing has changed.
func (d *Directory) replace(next *cav1.Directory) *cav1.Directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	merged := merge(d.current, next)
	if proto.Equal(merged, d.current) {
		return nil
	}
	d.current = merged
	close(d.changed)
	d.changed = make(chan struct{})
	return merged
}

func merge(old, next *cav1.Directory) *cav1.Directory {
	told := map[authzv1.Role]bool{}
	out := &cav1.Directory{}
	for _, e := range next.GetEntries() {
		if len(e.GetAddresses()) > 0 {
			told[e.GetRole()] = true
			out.Entries = append(out.Entries, proto.CloneOf(e))
		}
	}
	for _, e := range old.GetEntries() {
		if !told[e.GetRole()] {
			out.Entries = append(out.Entries, e)
		}
	}
	slices.SortFunc(out.Entries, func(a, b *cav1.DirectoryEntry) int {
		return cmp.Or(cmp.Compare(a.GetRole(), b.GetRole()), cmp.Compare(a.GetMachineId(), b.GetMachineId()))
	})
	return out
}

// Entries are the members of a role, by machine id.
func (d *Directory) Entries(role authzv1.Role) []*cav1.DirectoryEntry {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*cav1.DirectoryEntry
	for _, e := range d.current.GetEntries() {
		if e.GetRole() == role {
			out = append(out, e)
		}
	}
	return out
}

// All is the whole list, to be passed on.
func (d *Directory) All() *cav1.Directory {
	d.mu.Lock()
	defer d.mu.Unlock()
	return proto.CloneOf(d.current)
}

// Changed is closed at the next change. Take it before reading.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// FromMembers makes the list from the store's members. Those that listen nowhere are left out, and those that are drained,
// unless all of their role are: nobody new goes there, and who is there leaves.
func FromMembers(members iter.Seq[*typesv1.Member]) *cav1.Directory {
	out, drained := &cav1.Directory{}, &cav1.Directory{}
	told := map[authzv1.Role]bool{}
	for m := range members {
		if len(m.GetAddresses()) == 0 {
			continue
		}
		e := &cav1.DirectoryEntry{
			Role: m.GetRole(), MachineId: m.GetMachineId(), Addresses: slices.Clone(m.GetAddresses()), Weight: m.GetWeight(),
		}
		if m.GetSpec().GetDrain() {
			drained.Entries = append(drained.Entries, e)
			continue
		}
		told[m.GetRole()] = true
		out.Entries = append(out.Entries, e)
	}
	for _, e := range drained.GetEntries() {
		if !told[e.GetRole()] {
			out.Entries = append(out.Entries, e)
		}
	}
	return out
}
