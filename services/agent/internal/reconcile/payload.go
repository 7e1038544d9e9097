package reconcile

import (
	"context"
	"path"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// Where files go whose path is not absolute.
const (
	secretsDir = "/run/secrets"
	configsDir = "/"
)

// Payload hears the data of a secret or config. It is kept in memory alone, while a task uses it.
func (l *Loop) Payload(ctx context.Context, p *dispatcherv1.Payload) {
	l.post(ctx, func(ctx context.Context) {
		l.payloads[p.GetId()] = p.GetData()
		l.forgetPayloads()
		for _, e := range l.tasks {
			if uses(e, p.GetId()) {
				l.step(ctx, e)
			}
		}
	})
}

// forgetPayloads lets go of what no task uses any more. The dispatcher sends it again when one does.
func (l *Loop) forgetPayloads() {
	for id := range l.payloads {
		used := false
		for _, e := range l.tasks {
			used = used || uses(e, id)
		}
		if !used {
			delete(l.payloads, id)
		}
	}
}

func uses(e *entry, id string) bool {
	for _, f := range state.FilesOf(e.assigned.GetSpec().GetContainer()) {
		if state.PayloadID(f.GetId(), f.GetVersion()) == id {
			return true
		}
	}
	return false
}

// files are what a task's container gets of secrets and configs. Unavailable: the data of one has not come yet.
func (l *Loop) files(e *entry) ([]container.File, error) {
	c := e.assigned.GetSpec().GetContainer()
	var out []container.File
	add := func(noun, dir string, refs []*typesv1.FileReference) error {
		for _, r := range refs {
			data, ok := l.payloads[state.PayloadID(r.GetId(), r.GetVersion())]
			if !ok {
				return errs.New(errs.Unavailable, "waits for the data of %s %q", noun, r.GetName())
			}
			target := r.GetTarget()
			if !path.IsAbs(target) {
				target = path.Join(dir, target)
			}
			out = append(out, container.File{Path: path.Clean(target), Data: data, UID: r.GetUid(), GID: r.GetGid(), Mode: r.GetMode()})
		}
		return nil
	}
	if err := add("secret", secretsDir, c.GetSecrets()); err != nil {
		return nil, err
	}
	return out, add("config", configsDir, c.GetConfigs())
}
