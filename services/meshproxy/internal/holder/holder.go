// Package holder says which process has a port, for a message to a person: best effort, from /proc.
//
// It changes nothing and keeps nothing. Its function is safe for concurrent use.
package holder

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Of looks the socket up in the network of the calling thread. It is "" if nothing listens there, or that cannot be seen.
func Of(network string, port uint16) string {
	for _, name := range []string{network, network + "6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			// proc_net_tcp(5): sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode; 0A is LISTEN.
			f := strings.Fields(line)
			if len(f) < 10 || (network == "tcp" && f[3] != "0A") {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == port {
				return ownerOf(f[9])
			}
		}
	}
	return ""
}

// ownerOf finds the process that has a socket open.
func ownerOf(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		comm, _ := os.ReadFile(process + "/comm")
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(comm)), filepath.Base(process))
	}
	return "a process that cannot be seen from here"
}
