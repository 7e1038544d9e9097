package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/shoalproject/shoal/internal/finding"
)

const (
	addressCheck = "addresses"
	// making is how long a network namespace may be there before its container: the image is pulled meanwhile.
	making = time.Hour
)

// addresses looks for network namespaces whose containers are gone. What is left in one still answers by the task's addresses,
// which the cluster gives to others in time.
func (m Machine) addresses(ctx context.Context, client *containerd.Client) finding.Finding {
	list, err := client.ContainerService().List(namespaces.WithNamespace(ctx, m.Namespace))
	if err != nil {
		return finding.Warned(addressCheck, fmt.Sprintf("containerd does not list the containers of %s: %s", m.Namespace, err), "", "")
	}
	has := make(map[string]bool, len(list))
	for _, c := range list {
		has[c.ID] = true
	}
	return leaked(filepath.Join(m.RunDir, "netns"), has, m.Now)
}

// leaked tells of namespaces in the folder that belong to none of the containers there are.
func leaked(folder string, containers map[string]bool, now time.Time) finding.Finding {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return finding.Warned(addressCheck, fmt.Sprintf("%s can't be read: %s", folder, err), "", "")
	}
	var left []string
	for _, e := range entries {
		if containers[e.Name()] {
			continue
		}
		// The mount hides how old its place is, but not the folder's entry: a namespace begins when it is mounted.
		if info, err := os.Stat(filepath.Join(folder, e.Name())); err == nil && now.Sub(info.ModTime()) > making {
			left = append(left, e.Name())
		}
	}
	if len(left) == 0 {
		return finding.Well(addressCheck, "%d network namespaces, each of a container or of one that is being made", len(entries))
	}
	return finding.Warned(addressCheck, fmt.Sprintf("network namespaces of containers that are gone: %s", strings.Join(left, ", ")),
		"they may answer by addresses that are given to others", "`shoal doctor --repair` has the agent start anew and remove what no task of this machine has")
}
