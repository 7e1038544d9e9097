// Package contexts keeps what a person needs to reach a cluster: gateway addresses, and an identity folder with a private
// key, both below the person's config folder, one folder a context.
//
// A context's folder is an identity folder (internal/identity), with the trust bundle a second time as ca.pem for tools
// such as curl. It must never be readable by others than its owner, and never holds a cluster's own keys. A Store keeps
// nothing in memory; two commands that write at once each leave whole files behind.
package contexts

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// ConfigFile says in the config folder which context is in use.
const ConfigFile = "config.yaml"

const (
	contextFile = "context.yaml"
	folder      = "contexts"
	caFile      = "ca.pem"
)

// Context is how to reach one cluster.
type Context struct {
	// Name is what the person calls it.
	Name string `yaml:"name"`
	// Cluster is the cluster's id.
	Cluster string `yaml:"cluster"`
	// Gateways are the addresses of gateways, as host:port, best first.
	Gateways []string `yaml:"gateways"`
}

type settings struct {
	// Current is the context in use.
	Current string `yaml:"current"`
}

// Store is the person's config folder.
type Store struct {
	files run.Files
	dir   string
}

// Dir is where the config folder is: $SHOAL_CONFIG, else shoal in $XDG_CONFIG_HOME, else in .config of the home folder.
func Dir(getenv func(string) string) (string, error) {
	if dir := getenv("SHOAL_CONFIG"); dir != "" {
		return dir, nil
	}
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		return path.Join(dir, "shoal"), nil
	}
	if home := getenv("HOME"); home != "" {
		return path.Join(home, ".config", "shoal"), nil
	}
	return "", errs.New(errs.Precondition, "there is no folder for contexts: HOME is not set; set SHOAL_CONFIG to a folder")
}

// New opens a config folder, which need not exist.
func New(files run.Files, dir string) *Store { return &Store{files: files, dir: dir} }

// Folder is the context's identity folder.
func (s *Store) Folder(name string) string { return path.Join(s.dir, folder, name) }

// Current is the name of the context in use; empty when there is none.
func (s *Store) Current() (string, error) {
	name := path.Join(s.dir, ConfigFile)
	if _, err := s.files.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	c, err := config.Load(s.files, name, settings{})
	return c.Current, err
}

// Use makes a context the one in use; empty: none is.
func (s *Store) Use(name string) error {
	if name != "" {
		if _, err := s.Get(name); err != nil {
			return err
		}
	}
	return s.write(path.Join(s.dir, ConfigFile), settings{Current: name})
}

// List returns all contexts by name.
func (s *Store) List() ([]Context, error) {
	names, err := s.files.List(path.Join(s.dir, folder))
	if err != nil {
		return nil, errs.New(errs.Unavailable, "list contexts: %w", err)
	}
	var out []Context
	for _, name := range names {
		c, err := s.Get(name)
		if errs.KindOf(err) == errs.NotFound {
			continue // a folder that is being made, or somebody else's
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Get reads one context. Errors: NotFound (with the names that there are), Invalid.
func (s *Store) Get(name string) (Context, error) {
	if !ValidName(name) {
		return Context{}, errs.New(errs.Invalid, "context %q: a name has letters, digits, - . and _, at most 63", name)
	}
	file := path.Join(s.Folder(name), contextFile)
	if _, err := s.files.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return Context{}, errs.New(errs.NotFound, "no context %q in %s; `shoal context ls` lists those that there are", name, s.dir)
	}
	c, err := config.Load(s.files, file, Context{})
	if err != nil {
		return Context{}, err
	}
	c.Name = name
	return c, nil
}

// Pick is the context of that name, or the one in use when the name is empty.
func (s *Store) Pick(name string) (Context, error) {
	if name != "" {
		return s.Get(name)
	}
	current, err := s.Current()
	if err != nil {
		return Context{}, err
	}
	if current == "" {
		return Context{}, errs.New(errs.Precondition, "no cluster is known in %s; run `shoal init` on this machine, or copy a manager's folder %s/<name> here and run `shoal context use <name>`", s.dir, path.Join(s.dir, folder))
	}
	return s.Get(current)
}

// Put writes a context, whose identity folder is there already, and the trust bundle under the name that curl's users
// expect.
func (s *Store) Put(c Context) error {
	bundle, err := s.files.Read(path.Join(s.Folder(c.Name), identity.BundleFile))
	if err != nil {
		return errs.New(errs.Unavailable, "read the trust bundle of context %q: %w", c.Name, err)
	}
	if err := s.files.Write(path.Join(s.Folder(c.Name), caFile), bundle, 0o644); err != nil {
		return errs.New(errs.Unavailable, "write context %q: %w", c.Name, err)
	}
	return s.write(path.Join(s.Folder(c.Name), contextFile), c)
}

// Free is the name, or the first of name-2, name-3 … that no context has.
func (s *Store) Free(name string) (string, error) {
	taken, err := s.files.List(path.Join(s.dir, folder))
	if err != nil {
		return "", errs.New(errs.Unavailable, "list contexts: %w", err)
	}
	next := name
	for i := 2; slices.Contains(taken, next); i++ {
		next = name + "-" + strconv.Itoa(i)
	}
	return next, nil
}

// ValidName says whether a context may be called so: it is also a folder's name.
func ValidName(name string) bool {
	if name == "" || len(name) > 63 || strings.Trim(name, ".") == "" {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r) {
			return false
		}
	}
	return true
}

func (s *Store) write(name string, value any) error {
	data, err := yaml.Marshal(value)
	if err != nil {
		return err
	}
	if err := s.files.Write(name, data, 0o600); err != nil {
		return errs.New(errs.Unavailable, "write %s: %w", name, err)
	}
	return nil
}
