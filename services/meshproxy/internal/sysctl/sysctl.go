// Package sysctl reads and writes the kernel's settings below /proc/sys/net, also where that is mounted read-only.
//
// It decides nothing and keeps nothing. Its functions are safe for concurrent use.
package sysctl

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shoalproject/shoal/services/meshproxy/internal/kernel"
)

const sysctls = "/proc/sys/"

// hostSysctls is where a container of ours has the machine's own: its runtime mounts /proc/sys read-only. Which network's
// settings they are depends on who looks, not on the mount.
const hostSysctls = "/host/proc/sys/"

// Read has ok false for one that is not there, unless its whole part is missing in this kernel.
func Read(path string) (value string, ok bool) {
	data, err := os.ReadFile(sysctls + path)
	if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(path, "net/ipv6/") {
		if _, err := os.Stat(sysctls + "net/ipv6"); errors.Is(err, fs.ErrNotExist) {
			return kernel.NoSetting, true
		}
	}
	return strings.TrimSpace(string(data)), err == nil
}

// Write sets one.
func Write(path, value string) error {
	if path == "net/ipv6/conf/all/forwarding" {
		if err := keepAdvertisements(); err != nil {
			return err
		}
	}
	return putSetting(path, value)
}

func putSetting(path, value string) error {
	err := os.WriteFile(sysctls+path, []byte(value), 0)
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	if other := os.WriteFile(hostSysctls+path, []byte(value), 0); !errors.Is(other, fs.ErrNotExist) {
		return other
	}
	return err
}

// keepAdvertisements lets links that take router advertisements go on with that although the machine forwards: else the
// machine would lose its own IPv6 default route some minutes later.
func keepAdvertisements() error {
	const conf = "net/ipv6/conf/"
	entries, err := os.ReadDir(sysctls + conf)
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		path := conf + e.Name() + "/accept_ra"
		if data, err := os.ReadFile(sysctls + path); err == nil && strings.TrimSpace(string(data)) == "1" {
			faults = append(faults, putSetting(path, "2"))
		}
	}
	return errors.Join(faults...)
}
