// Package cgroup gives every lab host a control group of its own in every hierarchy of the machine, so that what
// the host and its containers leave there can be removed exactly: the host's init is born inside that group and in a
// cgroup namespace, which makes the group the root of all that the host can see or create.
//
// It never touches a group outside the lab's own top group, /shoal-lab-<lab id>. Nothing in it is safe for concurrent
// use on the same host; different hosts are independent.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one cgroup hierarchy as the machine has it mounted.
type Mount struct {
	Path    string // where it is mounted, for example /sys/fs/cgroup/memory
	V2      bool
	Options string // v1 only: the controllers or the name, as mount(8) wants them
}

// Mounts lists the cgroup hierarchies that the calling process sees, in mount order.
func Mounts() ([]Mount, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the cgroup mounts: %w", err)
	}
	defer file.Close()
	var mounts []Mount
	for lines := bufio.NewScanner(file); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		switch right[0] {
		case "cgroup":
			mounts = append(mounts, Mount{Path: left[4], Options: v1Options(right[2])})
		case "cgroup2":
			mounts = append(mounts, Mount{Path: left[4], V2: true})
		}
	}
	return mounts, nil
}

// v1Options keeps what identifies a hierarchy: mounting with other options than the first mount's is refused.
func v1Options(super string) string {
	var keep []string
	for option := range strings.SplitSeq(super, ",") {
		switch {
		case option == "rw", option == "ro", option == "xattr", option == "clone_children", option == "noprefix",
			strings.HasPrefix(option, "release_agent="):
		case strings.HasPrefix(option, "name="):
			keep = append(keep, "none", option)
		default:
			keep = append(keep, option)
		}
	}
	return strings.Join(keep, ",")
}

// Group is a path below the root of every hierarchy, for example shoal-lab-ab12cd/m1.
type Group struct {
	path   string
	mounts []Mount
}

// Open names a group; it need not exist.
func Open(path string) (Group, error) {
	mounts, err := Mounts()
	if err != nil {
		return Group{}, err
	}
	return Group{path: path, mounts: mounts}, nil
}

// Create makes the group in every hierarchy, parents included.
func (g Group) Create() error {
	for _, mount := range g.mounts {
		dir := mount.Path
		for part := range strings.SplitSeq(g.path, "/") {
			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create cgroup %s: %w", dir, err)
			}
			if err := prepare(mount, parent, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepare makes a new group fit to hold processes: a v1 cpuset is born empty and refuses every process, and a v2
// group offers its children only the controllers that its parent hands down.
func prepare(mount Mount, parent, dir string) error {
	if mount.V2 {
		available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("read the controllers of %s: %w", parent, err)
		}
		for controller := range strings.FieldsSeq(string(available)) {
			// A controller that cannot be handed down is one that this machine does not delegate: containers
			// there have no limit of that kind, as on the machine itself.
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		return nil
	}
	if !slices.Contains(strings.Split(mount.Options, ","), "cpuset") {
		return nil
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), value, 0)
		}
		if err != nil {
			return fmt.Errorf("hand %s down to %s: %w", name, dir, err)
		}
	}
	return nil
}

// Enter moves the calling process into the group and returns the way back: children born between the two calls
// belong to the group.
func (g Group) Enter() (leave func() error, err error) {
	home, err := current(g.mounts)
	if err != nil {
		return nil, err
	}
	leave = func() error { return attach(home) }
	var dirs []string
	for _, mount := range g.mounts {
		dirs = append(dirs, filepath.Join(mount.Path, g.path))
	}
	if err := attach(dirs); err != nil {
		return nil, errors.Join(err, leave())
	}
	return leave, nil
}

func attach(dirs []string) error {
	for _, dir := range dirs {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("move into cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// current lists the folders of the groups that the calling process is in, one for each mount.
func current(mounts []Mount) ([]string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read own cgroups: %w", err)
	}
	var dirs []string
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, mount := range mounts {
			options := strings.TrimPrefix(mount.Options, "none,")
			if (mount.V2 && parts[0] == "0") || (!mount.V2 && parts[0] != "0" && sameSet(options, parts[1])) {
				dirs = append(dirs, filepath.Join(mount.Path, parts[2]))
			}
		}
	}
	return dirs, nil
}

func sameSet(a, b string) bool {
	left, right := strings.Split(a, ","), strings.Split(b, ",")
	slices.Sort(left)
	slices.Sort(right)
	return slices.Equal(left, right)
}

// Processes lists the ids of all processes in the group and below it.
func (g Group) Processes() []int {
	found := map[int]bool{}
	for _, dir := range g.dirs() {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err != nil {
			continue // it went while we looked
		}
		for field := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				found[pid] = true
			}
		}
	}
	pids := make([]int, 0, len(found))
	for pid := range found {
		pids = append(pids, pid)
	}
	return pids
}

// dirs lists the group's folders in every hierarchy, deepest first.
func (g Group) dirs() []string {
	var dirs []string
	for _, mount := range g.mounts {
		_ = filepath.WalkDir(filepath.Join(mount.Path, g.path), func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what vanishes while we walk is what we want gone
		})
	}
	slices.SortFunc(dirs, func(a, b string) int { return len(b) - len(a) })
	return dirs
}

// Exists says whether any hierarchy still has the group.
func (g Group) Exists() bool { return len(g.dirs()) > 0 }

// Remove removes the group and all below it. A process that is still in it makes it fail with EBUSY; the caller ends
// the processes first and may try again.
func (g Group) Remove() error {
	var faults []error
	for _, dir := range g.dirs() {
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(faults...)
}
