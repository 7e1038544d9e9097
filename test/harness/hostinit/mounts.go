package hostinit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/test/harness/cgroup"
)

// Folders are the host's own folders, laid over those of the outer machine. The order matters where one lies in
// another.
func Folders() []string {
	return []string{
		"/etc/shoal", "/etc/containerd", "/var/lib/shoal", "/var/lib/containerd", "/var/lib/docker", "/var/log", "/root",
	}
}

// volatile is memory, as on any machine. In a folder of the disk a container's small files cost more the more were removed before: ext4
// looks at each inode that was freed in the last minutes before it takes one.
const volatile = "/run"

// dataFolders are those that a small disk holds instead of the host's folder.
func dataFolders() []string { return []string{"/var/lib/shoal", "/var/lib/containerd"} }

// layers are folders of the outer machine that a host sees through a writable overlay, so that it can have files and
// mount points there that the machine itself does not have.
func layers() []string { return []string{"/etc", "/var/lib"} }

func mountAll(machine Machine) error {
	hierarchies, err := cgroup.Mounts()
	if err != nil {
		return err
	}
	// Step 1: no mount made here may be seen outside. (Copies of outer mounts stay; those of another lab go when its
	// folder goes, because the kernel detaches a mount everywhere when its mount point is removed.)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the host's mounts private: %w", err)
	}
	// Step 2: /proc and /sys of the host's own namespaces, then the cgroup hierarchies, whose root is now the
	// host's own group.
	if err := mount("proc", "/proc", "proc", ""); err != nil {
		return err
	}
	if err := mountSys(hierarchies); err != nil {
		return err
	}
	// Step 3: the overlays give room for mount points, the binds go on top of them.
	for _, layer := range layers() {
		if err := overlay(machine.Dir, layer); err != nil {
			return err
		}
	}
	for _, folder := range Folders() {
		if err := bind(filepath.Join(machine.Dir, folder), folder); err != nil {
			return err
		}
	}
	if err := mount("tmpfs", volatile, "tmpfs", "mode=755"); err != nil {
		return err
	}
	if machine.Disk != "" {
		if err := mountDisk(machine.Disk); err != nil {
			return err
		}
	}
	if machine.Containerd != "" {
		if err := replaceContainerd(machine.Containerd); err != nil {
			return err
		}
	}
	return writeEtc(machine)
}

// replaceContainerd lays another containerd over that of the outer machine.
func replaceContainerd(folder string) error {
	for _, program := range []string{"containerd", "containerd-shim-runc-v2"} {
		source, target := filepath.Join(folder, program), filepath.Join("/usr/bin", program)
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("lay %s over %s: %w", source, target, err)
		}
	}
	return nil
}

func mount(source, target, kind, options string) error {
	if err := unix.Mount(source, target, kind, 0, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", kind, target, err)
	}
	return nil
}

// bind lays source over target and makes both folders if they are missing.
func bind(source, target string) error {
	for _, dir := range []string{source, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s over %s: %w", source, target, err)
	}
	return nil
}

func overlay(dir, layer string) error {
	base := filepath.Join(dir, ".overlay", strings.ReplaceAll(strings.TrimPrefix(layer, "/"), "/", "-"))
	upper, work := filepath.Join(base, "upper"), filepath.Join(base, "work")
	for _, path := range []string{upper, work} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + layer + ",upperdir=" + upper + ",workdir=" + work
	if err := mount("overlay", layer, "overlay", options); err != nil {
		return fmt.Errorf("%w (the lab's folder must be on a real file system such as ext4, and not below %s)", err, layer)
	}
	return nil
}

func mountSys(hierarchies []cgroup.Mount) error {
	links, err := controllerLinks()
	if err != nil {
		return err
	}
	if err := mount("sysfs", "/sys", "sysfs", ""); err != nil {
		return err
	}
	if len(hierarchies) == 0 {
		return nil
	}
	const root = "/sys/fs/cgroup"
	if hierarchies[0].Path == root { // the unified hierarchy alone
		return mountUnified(root)
	}
	if err := mount("tmpfs", root, "tmpfs", "mode=755"); err != nil {
		return err
	}
	for _, hierarchy := range hierarchies {
		if !strings.HasPrefix(hierarchy.Path, root+"/") {
			continue
		}
		if err := os.MkdirAll(hierarchy.Path, 0o755); err != nil {
			return err
		}
		kind := "cgroup"
		if hierarchy.V2 {
			kind = "cgroup2"
		}
		if err := mount("cgroup", hierarchy.Path, kind, hierarchy.Options); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// controllerLinks remembers links such as cpu -> cpu,cpuacct, by which programs find joined controllers.
func controllerLinks() (map[string]string, error) {
	entries, err := os.ReadDir("/sys/fs/cgroup")
	if err != nil {
		return nil, fmt.Errorf("read the cgroup mounts: %w", err)
	}
	links := map[string]string{}
	for _, entry := range entries {
		if target, err := os.Readlink(filepath.Join("/sys/fs/cgroup", entry.Name())); err == nil {
			links[entry.Name()] = target
		}
	}
	return links, nil
}

// mountUnified mounts cgroup v2, moves the init out of the root of its view, and hands the controllers down: a v2
// group with processes of its own offers its children none.
func mountUnified(root string) error {
	if err := mount("cgroup2", root, "cgroup2", ""); err != nil {
		return err
	}
	leaf := filepath.Join(root, "init.scope")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return fmt.Errorf("move the init into its own cgroup: %w", err)
	}
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("read the cgroup controllers: %w", err)
	}
	for controller := range strings.FieldsSeq(string(controllers)) {
		// One that cannot be handed down leaves containers without that limit, no more.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
	return nil
}

// mountDisk puts the data folders on the small file system. mount(8) makes the loop device detach itself when the
// last mount goes, so that a power cut leaves no device behind.
func mountDisk(disk string) error {
	const point = "/run/shoal-lab/disk"
	if err := os.MkdirAll(point, 0o755); err != nil {
		return err
	}
	if said, err := exec.Command("mount", "-o", "loop", disk, point).CombinedOutput(); err != nil {
		return fmt.Errorf("mount the disk %s: %w: %s", disk, err, strings.TrimSpace(string(said)))
	}
	for _, folder := range dataFolders() {
		if err := bind(filepath.Join(point, folder), folder); err != nil {
			return err
		}
	}
	return nil
}

// writeEtc writes the host's own name files. An empty resolv.conf makes lookups of unknown names fail at once instead
// of waiting for a server that the lab cannot reach.
func writeEtc(machine Machine) error {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, peer := range machine.Peers {
		for _, address := range peer.Addresses {
			fmt.Fprintf(&hosts, "%s %s\n", address, peer.Name)
		}
	}
	files := map[string]string{
		"/etc/hostname": machine.Name + "\n", "/etc/hosts": hosts.String(), "/etc/resolv.conf": "",
	}
	for path, text := range files {
		// A link such as Debian's resolv.conf -> ../run/… must not be followed out of the host.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace %s: %w", path, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
