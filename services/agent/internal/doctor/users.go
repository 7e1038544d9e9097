package doctor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/finding"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/kernel"
	"github.com/shoalproject/shoal/services/agent/internal/userns"
)

const usersCheck = "user namespaces"

// IDs are the user and group ids that the agent gives to containers with user namespaces of their own.
type IDs struct {
	First  uint32
	Ranges int
}

// end is the first id after them.
func (i IDs) end() uint64 { return uint64(i.First) + uint64(i.Ranges)*container.IDCount }

// users looks whether containers can have user namespaces of their own, and whether the ids for that are somebody's.
func (m Machine) users(etc string) finding.Finding {
	const why = "services with `--userns private` do not run here"
	if kernel.Apart(m.Socket) {
		return finding.Warned(usersCheck, "an agent in a container does not see the files of images", why, "install shoal's packages on the machine itself")
	}
	if os.Geteuid() != 0 {
		return finding.Warned(usersCheck, "only root may try them", "", "run it as root")
	}
	if err := userns.Able(present(m.Volumes)); err != nil {
		return finding.Warned(usersCheck, err.Error(), why, "mend what it says, then `systemctl restart shoal-agent`; services without need nothing")
	}
	if owners := m.IDs.owners(etc); len(owners) > 0 {
		return finding.Warned(usersCheck, fmt.Sprintf("ids from %d to %d are given to containers, and are those of %s too", m.IDs.First, m.IDs.end()-1, strings.Join(owners, ", ")),
			"who breaks out of such a container is that user", "set `user_ids` and `user_ranges` in agent.yaml to ids that nobody has")
	}
	return finding.Well(usersCheck, "containers can have them: %d ranges from id %d", m.IDs.Ranges, m.IDs.First)
}

// present is the folder, or that which it will be in.
func present(folder string) string {
	for folder != filepath.Dir(folder) {
		if _, err := os.Stat(folder); err == nil {
			break
		}
		folder = filepath.Dir(folder)
	}
	return folder
}

// owners are those of the machine's files who have some of the ids: people and groups (passwd(5)), and what people may give to namespaces
// of theirs (subuid(5)).
func (i IDs) owners(etc string) (out []string) {
	const most = 1 << 20 // bytes of a file
	for _, f := range []struct {
		name         string
		first, count int // which words say it; 0: one id
	}{{"passwd", 2, 0}, {"group", 2, 0}, {"subuid", 1, 2}, {"subgid", 1, 2}} {
		data, err := os.ReadFile(filepath.Join(etc, f.name))
		if err != nil {
			continue // a machine may have no such file
		}
		for line := range bytes.Lines(data[:min(len(data), most)]) {
			words, count := strings.Split(strings.TrimSpace(string(line)), ":"), uint64(1)
			if len(words) <= max(f.first, f.count) {
				continue
			}
			first, err := strconv.ParseUint(words[f.first], 10, 32)
			if err == nil && f.count > 0 {
				count, err = strconv.ParseUint(words[f.count], 10, 32)
			}
			if err == nil && first < i.end() && first+count > uint64(i.First) {
				out = append(out, fmt.Sprintf("%s (%s)", words[0], filepath.Join(etc, f.name)))
			}
		}
	}
	const told = 5
	if len(out) > told {
		out = append(slices.Clone(out[:told]), fmt.Sprintf("%d more", len(out)-told))
	}
	return out
}
