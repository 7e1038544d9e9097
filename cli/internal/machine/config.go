package machine

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strconv"

	"github.com/goccy/go-yaml"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

const configMode = fs.FileMode(0o640)

// place is where this machine is reached.
type place struct {
	advertise []string
	listen    string // address to bind, without a port; empty: the advertised ones
}

// writeConfigs writes the processes' configuration files. What a person has put into one stays, but for the keys that
// are set here.
func (m *Machine) writeConfigs(roles []authzv1.Role, at place, back *undo) error {
	for _, r := range roles {
		name := m.config(r)
		old, err := m.Env.Files.Read(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errs.New(errs.Unavailable, "read %s: %w", name, err)
		}
		absent := err != nil
		back.add("restore "+name, func(context.Context) error {
			if absent {
				return m.Env.Files.Remove(name)
			}
			return m.Env.Files.Write(name, old, configMode)
		})
		data, err := m.configOf(r, old, at)
		if err != nil {
			return errs.New(errs.Invalid, "%s: %w; mend it, or remove it", name, err)
		}
		if err := m.Env.Files.Write(name, data, configMode); err != nil {
			return errs.New(errs.Unavailable, "write %s: %w", name, err)
		}
	}
	return nil
}

func (m *Machine) configOf(role authzv1.Role, old []byte, at place) ([]byte, error) {
	var doc yaml.MapSlice
	if err := yaml.Unmarshal(old, &doc); err != nil {
		return nil, err
	}
	doc = set(doc, "data", m.folder(role))
	doc = set(doc, "advertise", at.advertise)
	if p := port(role); p != 0 && at.listen != "" {
		doc = set(doc, "listen", []string{net.JoinHostPort(at.listen, strconv.Itoa(p))})
	}
	if role == authzv1.Role_ROLE_AGENT {
		p, err := m.meshPort()
		if err != nil {
			return nil, err
		}
		doc = set(doc, "mesh_port", p)
	}
	return yaml.Marshal(doc)
}

// meshPort is where this machine's meshproxy listens, by its configuration; the agent tells it to the cluster.
func (m *Machine) meshPort() (int, error) {
	data, err := m.Env.Files.Read(m.config(authzv1.Role_ROLE_MESHPROXY))
	if err != nil {
		return 0, err
	}
	var proxy struct {
		Listen []string `yaml:"listen"`
	}
	if err := yaml.Unmarshal(data, &proxy); err != nil {
		return 0, err
	}
	if len(proxy.Listen) == 0 {
		return port(authzv1.Role_ROLE_MESHPROXY), nil
	}
	_, text, err := net.SplitHostPort(proxy.Listen[0])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

func set(doc yaml.MapSlice, key string, value any) yaml.MapSlice {
	for i := range doc {
		if doc[i].Key == key {
			doc[i].Value = value
			return doc
		}
	}
	return append(doc, yaml.MapItem{Key: key, Value: value})
}
