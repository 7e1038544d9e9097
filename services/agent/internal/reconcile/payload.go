package reconcile

import (
	"context"
	"errors"
	"path"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/placeholder"
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

// maxFile bounds what becomes of a file with placeholders, in bytes: twice the largest that there is without.
const maxFile = 2 << 20

// Payload hears the data of a secret or config, or a login. It is kept in memory alone, while a task uses it.
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
	if e.assigned.GetLogin() == id {
		return true
	}
	for _, f := range state.FilesOf(e.assigned.GetSpec().GetContainer()) {
		if state.PayloadID(f.GetId(), f.GetVersion()) == id {
			return true
		}
	}
	return false
}

// login is what the registry of a task's image wants to hear. One that has not come yet holds up those tasks alone whose image
// is not here.
func (l *Loop) login(e *entry) (container.Login, error) {
	id := e.assigned.GetLogin()
	if id == "" {
		return container.Login{}, nil
	}
	data, ok := l.payloads[id]
	if !ok {
		return container.Login{Awaited: true}, nil
	}
	var said typesv1.RegistryLogin
	if err := proto.Unmarshal(data, &said); err != nil {
		return container.Login{}, errs.New(errs.Internal, "the login of the image's registry does not read")
	}
	return container.Login{Username: said.GetUsername(), Password: said.GetPassword(), Token: said.GetIdentityToken()}, nil
}

// files are what a task's container gets of secrets and configs. Unavailable: the data of one has not come yet. Invalid: one
// has a placeholder for what the container does not have, or an owner.
func (l *Loop) files(e *entry, spec container.Spec) ([]container.File, error) {
	c := e.assigned.GetSpec().GetContainer()
	beside := placeholder.Beside{Env: map[string]string{}, Secrets: map[string]string{}, Configs: map[string]string{}}
	for _, pair := range spec.Container.GetEnv() {
		name, value, _ := strings.Cut(pair, "=")
		beside.Env[name] = value
	}
	kinds := []struct {
		noun, dir string
		refs      []*typesv1.FileReference
		data      map[string]string // by target
	}{{"secret", secretsDir, c.GetSecrets(), beside.Secrets}, {"config", configsDir, c.GetConfigs(), beside.Configs}}
	for _, k := range kinds {
		for _, r := range k.refs {
			data, ok := l.payloads[state.PayloadID(r.GetId(), r.GetVersion())]
			if !ok {
				return nil, errs.New(errs.Unavailable, "waits for the data of %s %q", k.noun, r.GetName())
			}
			k.data[r.GetTarget()] = string(data)
		}
	}
	var out []container.File
	for _, k := range kinds {
		for _, r := range k.refs {
			data := k.data[r.GetTarget()]
			if r.GetTemplate() {
				filled, err := placeholder.ExpandFile(data, l.values(e.assigned), beside, maxFile)
				if err != nil {
					return nil, errs.New(errs.Invalid, "%s %q: %w", k.noun, r.GetName(), err)
				}
				data = filled
			}
			target := r.GetTarget()
			if !path.IsAbs(target) {
				target = path.Join(k.dir, target)
			}
			uid, wrong := spec.IDs.Outside(r.GetUid())
			gid, err := spec.IDs.Outside(r.GetGid())
			if err = errors.Join(wrong, err); err != nil {
				return nil, errs.New(errs.Invalid, "owner of %s %q: %w", k.noun, r.GetName(), err)
			}
			out = append(out, container.File{Path: path.Clean(target), Data: []byte(data), UID: uid, GID: gid, Mode: r.GetMode()})
		}
	}
	return out, nil
}
