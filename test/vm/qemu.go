package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// processors is how many the machine has.
const processors = 2

// checkMachine tells everything at once that this machine lacks to run another.
func checkMachine(accel string) error {
	var faults []error
	if os.Geteuid() != 0 {
		faults = append(faults, errors.New("making a machine's disk takes root; try again with sudo"))
	}
	var missing []string
	for _, tool := range []string{"qemu-system-" + qemuArch(), "debootstrap", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		faults = append(faults, fmt.Errorf("%s is missing; on Debian: tools/make/deps vm", strings.Join(missing, ", ")))
	}
	if accel == "kvm" {
		file, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			faults = append(faults, fmt.Errorf("this machine gives no virtual machines: %w. Where it is one itself, allow nesting on its host; "+
				"or have qemu play the processor, which takes many times as long: -accel tcg", err))
		} else {
			_ = file.Close()
		}
	}
	return errors.Join(faults...)
}

// qemuArch is this machine's architecture in qemu's words.
func qemuArch() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64"
	}
	return "x86_64"
}

// console is where the kernel writes in a machine without a screen.
func console() string {
	if runtime.GOARCH == "arm64" {
		return "ttyAMA0"
	}
	return "ttyS0"
}

// tag names a shared folder towards the machine.
func tag(i int) string { return fmt.Sprintf("share%d", i) }

// arguments of qemu: a machine with a disk, a network that ends in qemu, and the port that calls the socket.
func (m *Machine) arguments(port string) []string {
	model, cpu, accel := "q35", "host", m.opts.Accel
	if runtime.GOARCH == "arm64" {
		model = "virt"
	}
	switch {
	case m.opts.Accel != "kvm":
		cpu, accel = "max", accel+",thread=multi,tb-size=1024"
	case runtime.GOARCH == "amd64":
		cpu = "host,arch-capabilities=off" // a nested machine may be shown this register and not be let set it
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", model, "-accel", accel, "-cpu", cpu, "-smp", fmt.Sprint(processors), "-m", fmt.Sprint(m.opts.MemoryMB),
		"-kernel", m.image.kernel, "-initrd", m.image.initrd,
		"-append", "root=/dev/vda rw console=" + console() + " panic=-1 mitigations=off quiet systemd.show_status=false net.ifnames=0",
		"-drive", "file=" + m.disk + ",format=raw,if=virtio,cache=writeback",
		"-serial", "file:" + filepath.Join(m.opts.Dir, "console"),
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,path=" + port,
		"-device", "virtserialport,chardev=port,name=shoal",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
	}
	args = append(args, share("guest", filepath.Join(m.opts.Dir, "guest"))...)
	for i, folder := range m.opts.Share {
		args = append(args, share(tag(i), folder)...)
	}
	return args
}

func share(tag, folder string) []string {
	return []string{"-virtfs", "local,readonly=on,security_model=none,multidevs=remap,mount_tag=" + tag + ",path=" + folder}
}
