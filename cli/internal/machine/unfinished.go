package machine

import (
	"context"
	"path"
	"slices"
	"strings"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

// unfinishedFile names, while init or join write files that somebody else's units will start from, the roles that they are
// for: after a power cut between two files, the next try makes them all again. Where units are started nobody needs it: there
// the units come last.
func (m *Machine) unfinishedFile() string {
	return m.layout().Path(path.Join(layout.DataDir, "unfinished"))
}

// unfinished are the roles whose files may be there in part.
func (m *Machine) unfinished() []authzv1.Role {
	data, err := m.Env.Files.Read(m.unfinishedFile())
	if err != nil {
		return nil
	}
	roles, err := layout.ParseRoles(strings.Fields(string(data)))
	if err != nil {
		return layout.All() // half a list
	}
	return roles
}

func (m *Machine) beginUnfinished(start Start, roles []authzv1.Role, back *undo) error {
	if start != StartNone {
		return nil
	}
	former := m.unfinished()
	back.add("restore "+m.unfinishedFile(), func(context.Context) error {
		if len(former) > 0 {
			return m.writeUnfinished(former)
		}
		return m.endUnfinished()
	})
	return m.writeUnfinished(layout.Sorted(slices.Concat(roles, former)))
}

func (m *Machine) writeUnfinished(roles []authzv1.Role) error {
	var names []string
	for _, r := range roles {
		names = append(names, identity.RoleName(r))
	}
	if err := m.Env.Files.Write(m.unfinishedFile(), []byte(strings.Join(names, "\n")+"\n"), configMode); err != nil {
		return errs.New(errs.Unavailable, "write %s: %w", m.unfinishedFile(), err)
	}
	return nil
}

func (m *Machine) endUnfinished() error {
	if err := m.Env.Files.Remove(m.unfinishedFile()); err != nil {
		return errs.New(errs.Unavailable, "remove %s: %w", m.unfinishedFile(), err)
	}
	return nil
}

// Again says whether this machine has the roles, or any if none is named, where nobody starts units: what starts containers
// calls join each time, also when the token has long been taken out of its settings.
func (m *Machine) Again(start Start, roles []authzv1.Role) bool {
	if start != StartNone {
		return false
	}
	has := m.complete()
	return len(has) > 0 && len(layout.Without(layout.Sorted(roles), has)) == 0
}

// complete are the roles all of whose files are there.
func (m *Machine) complete() []authzv1.Role { return layout.Without(m.Roles(), m.unfinished()) }
