package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// checkMachine tells everything at once that the machine lacks for a lab.
func checkMachine() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root: it makes namespaces, mounts and network links; try again with sudo")
	}
	needs := []struct{ tool, debian string }{
		{"containerd", "containerd"}, {"runc", "runc"}, {"nft", "nftables"}, {"ip", "iproute2"},
		{"mount", "mount"}, {"mkfs.ext4", "e2fsprogs"},
	}
	var missing, packages []string
	for _, need := range needs {
		if _, err := exec.LookPath(need.tool); err != nil {
			missing, packages = append(missing, need.tool), append(packages, need.debian)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s; on Debian: apt-get install %s",
			strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return nil
}

// findProgram finds the shoal-lab binary: this very program, or the one in the bin folder of the project that the
// working folder belongs to (for a test binary, which cannot be its own hosts' init).
func findProgram() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if filepath.Base(self) == "shoal-lab" {
		return self, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the project's root was not found above the working folder; name the shoal-lab binary")
		}
	}
	program := filepath.Join(dir, "bin", "shoal-lab")
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%s is missing: run `make build` first, or "+
			"`go build -o bin/shoal-lab ./test/harness/cmd/shoal-lab` in %s", program, dir)
	}
	return program, nil
}
