package machine

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"slices"
	"strconv"

	"github.com/goccy/go-yaml"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

const configMode = fs.FileMode(0o640)

// place is where this machine is reached, and what its processes are to each other.
type place struct {
	advertise []string
	listen    string // address to bind, without a port; empty: the advertised ones
	roles     []authzv1.Role
	learner   bool // its store does not vote
	// dataPort is the UDP port between machines; 0: a cluster's that this machine does not know yet
	dataPort int
	// elsewhere says that the processes run in containers: the machine's containerd does not see their programs.
	elsewhere bool
}

// writeConfigs writes the processes' configuration files. What a person has put into one stays, but for the keys that
// are set here.
func (m *Machine) writeConfigs(roles []authzv1.Role, at place, back *undo) error {
	for _, r := range roles {
		old, err := m.readConfig(r)
		if err != nil {
			return err
		}
		data, err := m.configOf(r, old, at)
		if err != nil {
			return errs.New(errs.Invalid, "%s: %w; mend it, or remove it", m.config(r), err)
		}
		if err := m.putConfig(r, old, data, back); err != nil {
			return err
		}
	}
	return nil
}

// readConfig returns nil for a file that is not there.
func (m *Machine) readConfig(role authzv1.Role) ([]byte, error) {
	old, err := m.Env.Files.Read(m.config(role))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.Unavailable, "read %s: %w", m.config(role), err)
	}
	return old, nil
}

func (m *Machine) putConfig(role authzv1.Role, old, data []byte, back *undo) error {
	name := m.config(role)
	absent := !m.exists(name)
	uid, gid, _ := m.Host.Owner(name) // root's, if it is not there
	back.add("restore "+name, func(context.Context) error {
		if absent {
			return m.Env.Files.Remove(name)
		}
		if now, err := m.Env.Files.Read(name); err == nil && bytes.Equal(now, old) {
			return nil // it was never changed: on a full disk it could not be written again
		}
		return errors.Join(m.Env.Files.Write(name, old, configMode), m.Host.Give(name, uid, gid))
	})
	if err := m.Env.Files.Write(name, data, configMode); err != nil {
		return errs.New(errs.Unavailable, "write %s: %w", name, err)
	}
	return nil
}

// begun are the configurations as they are going to be, of those that a person has begun; one that can't be read as YAML is
// given as it is, and its program says why.
func (m *Machine) begun(roles []authzv1.Role, at place) map[authzv1.Role][]byte {
	out := map[authzv1.Role][]byte{}
	for _, r := range roles {
		old, err := m.readConfig(r)
		if err != nil || len(old) == 0 {
			continue
		}
		if out[r], err = m.configOf(r, old, at); err != nil {
			out[r] = old
		}
	}
	return out
}

// configOf is a new process's configuration.
func (m *Machine) configOf(role authzv1.Role, old []byte, at place) ([]byte, error) {
	var doc yaml.MapSlice
	if err := yaml.Unmarshal(old, &doc); err != nil {
		return nil, err
	}
	doc = set(doc, "data", m.folder(role))
	doc = set(doc, "advertise", at.advertise)
	if p := layout.Port(role); p != 0 && at.listen != "" {
		doc = set(doc, "listen", []string{net.JoinHostPort(at.listen, strconv.Itoa(p))})
	}
	if role == authzv1.Role_ROLE_STORE && at.learner {
		doc = set(doc, "learner", true)
	}
	if role == authzv1.Role_ROLE_AGENT && at.elsewhere {
		doc = set(doc, "logger", m.folder(role)+"/bin/shoal-logger")
	}
	doc, err := m.shape(doc, role, at.roles)
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(doc)
}

// shape sets what a process must know of the others on its machine: a meshproxy without an agent opens the machine's session
// itself, and an agent tells the cluster where the machine's meshproxy is.
func (m *Machine) shape(doc yaml.MapSlice, role authzv1.Role, beside []authzv1.Role) (yaml.MapSlice, error) {
	switch role {
	case authzv1.Role_ROLE_MESHPROXY:
		alone := !slices.Contains(beside, authzv1.Role_ROLE_AGENT)
		if get(doc, "ingress") == true || alone {
			doc = set(doc, "ingress", alone)
		}
	case authzv1.Role_ROLE_AGENT:
		if slices.Contains(beside, authzv1.Role_ROLE_MESHPROXY) {
			p, err := m.meshPort()
			if err != nil {
				return nil, err
			}
			doc = set(doc, "mesh_port", p)
		}
	}
	return doc, nil
}

// reshape brings the configuration of the processes that are here already to what the machine is going to be. It returns
// those that have to be restarted for it.
func (m *Machine) reshape(has, all []authzv1.Role, back *undo) ([]authzv1.Role, error) {
	var changed []authzv1.Role
	for _, r := range has {
		old, err := m.readConfig(r)
		if err != nil {
			return nil, err
		}
		var doc yaml.MapSlice
		if err := yaml.Unmarshal(old, &doc); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w; mend it", m.config(r), err)
		}
		before, err := yaml.Marshal(doc)
		if err != nil {
			return nil, err
		}
		if doc, err = m.shape(doc, r, all); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w; mend it", m.config(r), err)
		}
		after, err := yaml.Marshal(doc)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(before, after) {
			continue
		}
		if err := m.putConfig(r, old, after, back); err != nil {
			return nil, err
		}
		changed = append(changed, r)
	}
	return changed, nil
}

// meshPort is where this machine's meshproxy listens, by its configuration; the agent tells it to the cluster.
func (m *Machine) meshPort() (int, error) {
	data, err := m.readConfig(authzv1.Role_ROLE_MESHPROXY)
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
		return layout.Port(authzv1.Role_ROLE_MESHPROXY), nil
	}
	_, text, err := net.SplitHostPort(proxy.Listen[0])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// advertised is where a process of this machine is reached, by its configuration.
func (m *Machine) advertised(role authzv1.Role) []string {
	var at struct {
		Advertise []string `yaml:"advertise"`
	}
	data, err := m.readConfig(role)
	if err != nil || yaml.Unmarshal(data, &at) != nil {
		return nil
	}
	return at.Advertise
}

func get(doc yaml.MapSlice, key string) any {
	for _, item := range doc {
		if item.Key == key {
			return item.Value
		}
	}
	return nil
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
