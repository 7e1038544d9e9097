// Package person gives whoever started shoal-dev a context of the cluster, so that `shoal` works at once, and takes it out
// of use again.
//
// It owns the one context of its name in the person's config folder. It must never leave files there that the person cannot
// read, and never change another context. A Person is a value.
package person

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// Person is who typed the command.
type Person struct {
	// Name is theirs, as a certificate may have it.
	Name string
	// Dir is their config folder.
	Dir string

	uid, gid int // whom new files belong to; -1: whoever writes them
}

// Of finds the person by the environment: behind sudo it is the one who typed sudo, whose home folder home tells.
func Of(getenv func(string) string, home func(user string) (string, error)) (Person, error) {
	p := Person{Name: nameOf(getenv), uid: -1, gid: -1}
	user := getenv("SUDO_USER")
	if user == "" || user == "root" || getenv("SHOAL_CONFIG") != "" {
		var err error
		p.Dir, err = contexts.Dir(getenv)
		return p, err
	}
	uid, errU := strconv.Atoi(getenv("SUDO_UID"))
	gid, errG := strconv.Atoi(getenv("SUDO_GID"))
	if errU != nil || errG != nil {
		return p, errs.New(errs.Invalid, "sudo said SUDO_USER=%s, but no SUDO_UID and SUDO_GID that are numbers; set SHOAL_CONFIG to the folder for the context", user)
	}
	at, err := home(user)
	if err != nil {
		return p, errs.New(errs.NotFound, "no home folder of %s, who called sudo: %w; set SHOAL_CONFIG to the folder for the context", user, err)
	}
	p.Dir, p.uid, p.gid = path.Join(at, ".config", "shoal"), uid, gid
	return p, nil
}

// nameOf is the login name without what a certificate's name may not have.
func nameOf(getenv func(string) string) string {
	name := getenv("SUDO_USER")
	if name == "" {
		name = getenv("USER")
	}
	name = strings.Map(func(r rune) rune {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._@", r) {
			return -1
		}
		return r
	}, strings.ToLower(name))
	if strings.Trim(name, ".") == "" || len(name) > 63 {
		return "admin"
	}
	return name
}

// Give writes the context with the identity in a folder, and makes it the one in use. Before is the one that was; pass it to
// Back. An identity of the same cluster that is there already stays: it may have been renewed.
func (p Person) Give(env run.Env, c contexts.Context, operator string) (before string, err error) {
	newest := p.firstMissing()
	store := contexts.New(env.Files, p.Dir)
	if before, err = store.Current(); err != nil {
		return "", err
	}
	if had, err := store.Get(c.Name); err != nil || had.Cluster != c.Cluster {
		if err := copyIdentity(env.Files, operator, store.Folder(c.Name)); err != nil {
			return before, err
		}
	}
	if err := store.Put(c); err != nil {
		return before, err
	}
	if err := store.Use(c.Name); err != nil {
		return before, err
	}
	return before, p.own(newest, store.Folder(c.Name))
}

// Back makes the context that was in use the one in use again, unless the person has chosen another one meanwhile.
func (p Person) Back(files run.Files, name, before string) error {
	store := contexts.New(files, p.Dir)
	if current, err := store.Current(); err != nil || current != name {
		return err
	}
	if _, err := store.Get(before); before != "" && err != nil {
		before = "" // it was removed meanwhile
	}
	if err := store.Use(before); err != nil {
		return err
	}
	return p.own("", "")
}

// Forget removes the context if it is of that cluster.
func (p Person) Forget(files run.Files, name, cluster string) error {
	store := contexts.New(files, p.Dir)
	if c, err := store.Get(name); err != nil || c.Cluster != cluster {
		return nil //nolint:nilerr // there is none, or it is of another cluster
	}
	if err := os.RemoveAll(store.Folder(name)); err != nil {
		return errs.New(errs.Unavailable, "remove the context %q: %w", name, err)
	}
	return nil
}

func copyIdentity(files run.Files, from, to string) error {
	for _, f := range []struct {
		name string
		mode fs.FileMode
	}{{identity.BundleFile, 0o644}, {identity.CertFile, 0o644}, {identity.KeyFile, 0o600}} {
		data, err := files.Read(path.Join(from, f.name))
		if err == nil {
			err = files.Write(path.Join(to, f.name), data, f.mode)
		}
		if err != nil {
			return errs.New(errs.Unavailable, "write the operator's identity: %w", err)
		}
	}
	return nil
}

// firstMissing is the topmost folder on the way to the config folder that is not there yet.
func (p Person) firstMissing() string {
	missing := ""
	for dir := p.Dir; dir != "/" && dir != "."; dir = path.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = dir
	}
	return missing
}

// own gives the person what was written for them: the folders from the topmost new one down, and the context.
func (p Person) own(newest, folder string) error {
	if p.uid < 0 {
		return nil
	}
	var faults []error
	give := func(name string) {
		if err := os.Lchown(name, p.uid, p.gid); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, errs.New(errs.Unavailable, "give %s to %s: %w", name, p.Name, err))
		}
	}
	give(path.Join(p.Dir, contexts.ConfigFile))
	for _, root := range []string{newest, folder} {
		if root == "" {
			continue
		}
		err := filepath.WalkDir(root, func(name string, _ fs.DirEntry, err error) error {
			give(name)
			return err
		})
		faults = append(faults, err)
	}
	if folder != "" {
		give(path.Dir(folder))
	}
	return errors.Join(faults...)
}
