package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"

	"github.com/shoalproject/shoal/internal/finding"

	"github.com/shoalproject/shoal/cli/internal/layout"
)

const (
	// leastBytes and leastFiles are what a process needs for its first hours: a store's log begins with a few MiB.
	leastBytes, leastFiles = 24 << 20, 500
	// lowBytes is where a person should begin to think of it.
	lowBytes = 1 << 30
	// leastOpen and lowOpen count open files of a process: one a connection, and containers inherit the limit.
	leastOpen, lowOpen = 1024, 8192
)

// settings are what of a config file matters to the checks.
type settings struct {
	Data      string   `yaml:"data"`
	Advertise []string `yaml:"advertise"`
	Listen    []string `yaml:"listen"`
}

// read is lenient: whether a file is valid is a check of its own.
func (d *Doctor) read(role authzv1.Role) settings {
	var s settings
	data, err := d.Env.Files.Read(d.Layout.Config(role))
	if err != nil || yaml.Unmarshal(data, &s) != nil {
		return settings{}
	}
	return s
}

func (d *Doctor) folder(role authzv1.Role) string {
	if f := d.read(role).Data; f != "" {
		return f
	}
	return d.Layout.Folder(role)
}

func (d *Doctor) disk(context.Context, Patient) []finding.Finding {
	var found []finding.Finding
	for _, dir := range []string{layout.DataDir, layout.ConfigDir} {
		at := d.Layout.Path(dir)
		space, err := d.System.Space(at)
		if err != nil {
			found = append(found, finding.Warned("disk", fmt.Sprintf("the space left for %s could not be read: %s", at, err), "", ""))
			continue
		}
		left := fmt.Sprintf("%d MiB and %d files are left for %s", space.Bytes>>20, space.Files, at)
		switch {
		case space.Bytes < leastBytes || space.Files < leastFiles:
			found = append(found, finding.Faulty("disk", left, fmt.Sprintf("at least %d MiB and %d files are needed", leastBytes>>20, leastFiles),
				"free some: `df -h "+at+"` and `df -i "+at+"` show which file system it is"))
		case dir == layout.DataDir && space.Bytes < lowBytes:
			found = append(found, finding.Warned("disk", left, "a full disk stops a store, and containers cannot be made", "free some, or enlarge it"))
		default:
			found = append(found, finding.Well("disk", "%s", left))
		}
	}
	return found
}

func (d *Doctor) openFiles(context.Context, Patient) []finding.Finding {
	limit, err := d.System.OpenFiles()
	text := fmt.Sprintf("a process may have %d files open", limit)
	switch {
	case err != nil:
		return []finding.Finding{finding.Warned("open files", "the limit could not be read: "+err.Error(), "", "")}
	case limit < leastOpen:
		return []finding.Finding{finding.Faulty("open files", text, fmt.Sprintf("at least %d are needed", leastOpen), "raise it: `ulimit -Hn`, or LimitNOFILE= of the unit")}
	case limit < lowOpen:
		return []finding.Finding{finding.Warned("open files", text, "each connection is one", "raise it: `ulimit -Hn`, or LimitNOFILE= of the unit")}
	}
	return []finding.Finding{finding.Well("open files", "%s", text)}
}

// nextConfigs lets each program check what a person has written, with what is going to be added to it.
func (d *Doctor) nextConfigs(ctx context.Context, p Patient) []finding.Finding {
	var found []finding.Finding
	for _, r := range p.Roles {
		text, begun := p.Configs[r]
		if !begun {
			continue
		}
		name := d.Layout.Config(r)
		trial := name + ".check"
		if err := d.Env.Files.Write(trial, text, 0o640); err != nil {
			found = append(found, finding.Faulty(path.Base(name), "write "+trial+": "+err.Error(), "", ""))
			continue
		}
		found = append(found, d.checkConfig(ctx, r, trial)...)
		if err := d.Env.Files.Remove(trial); err != nil {
			found = append(found, finding.Warned(path.Base(name), "remove "+trial+": "+err.Error(), "", "remove it"))
		}
	}
	return found
}

func (d *Doctor) configs(ctx context.Context, p Patient) []finding.Finding {
	var found []finding.Finding
	valid := 0
	for _, r := range p.Roles {
		faults := d.checkConfig(ctx, r, d.Layout.Config(r))
		if found = append(found, faults...); len(faults) == 0 {
			valid++
		}
	}
	if valid > 0 {
		found = append(found, finding.Well("configuration", "%d files in %s are valid", valid, d.Layout.Path(layout.ConfigDir)))
	}
	return found
}

func (d *Doctor) checkConfig(ctx context.Context, role authzv1.Role, file string) []finding.Finding {
	program, err := d.Programs.Find(layout.Unit(role))
	if err != nil {
		return nil // programs has told it
	}
	if _, err := d.Programs.Run(ctx, program, "-check", "-config", file); err != nil {
		why, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), file, d.Layout.Config(role)), " (exit code")
		return []finding.Finding{finding.Faulty(path.Base(d.Layout.Config(role)), why, "", "mend the file, or remove it")}
	}
	return nil
}

// keyModes: a key that others can read is as good as given away, and its process refuses it.
func (d *Doctor) keyModes(_ context.Context, p Patient) []finding.Finding {
	if !d.System.Privileged() {
		return nil
	}
	var found []finding.Finding
	keys := 0
	for _, r := range layout.All() {
		folder := d.folder(r)
		for _, name := range d.secrets(folder) {
			info, err := d.Env.Files.Stat(name)
			if err != nil || info.IsDir() {
				continue
			}
			keys++
			if mode := info.Mode().Perm(); mode&^0o600 != 0 {
				found = append(found, finding.Faulty("key", fmt.Sprintf("%s has mode %04o", name, mode), "others can read or change it",
					"chmod 600 "+name+"; if somebody may have read it, remove the member and join again"))
			}
		}
		if info, err := d.Env.Files.Stat(folder); err == nil && slices.Contains(p.Roles, r) && info.Mode().Perm()&0o077 != 0 {
			found = append(found, finding.Warned("folder", fmt.Sprintf("%s has mode %04o", folder, info.Mode().Perm()), "it should be its process's alone", "chmod 700 "+folder))
		}
	}
	if keys > 0 && len(found) == 0 {
		found = append(found, finding.Well("keys", "%d keys are readable for their owner alone", keys))
	}
	return found
}

// secrets are the files of a process's folder, and of the folders in it, whose names say that they hold keys.
func (d *Doctor) secrets(folder string) []string {
	var out []string
	dirs := []string{folder}
	if names, err := d.Env.Files.List(folder); err == nil {
		for _, n := range names {
			dirs = append(dirs, path.Join(folder, n))
		}
	}
	for _, dir := range dirs {
		names, err := d.Env.Files.List(dir)
		if err != nil {
			continue // a file, or gone meanwhile
		}
		for _, n := range names {
			if strings.Contains(n, "key") {
				out = append(out, path.Join(dir, n))
			}
		}
	}
	return out
}

// owners: where a process has a user of its own, its folder must be that user's.
func (d *Doctor) owners(_ context.Context, p Patient) []finding.Finding {
	if !d.System.Privileged() {
		return nil
	}
	var found []finding.Finding
	for _, r := range p.Roles {
		user := layout.Unit(r)
		uid, gid, ok := d.Accounts.Account(user)
		if !ok {
			uid, gid, user = 0, 0, "root"
		}
		for name, owner := range map[string]int{d.folder(r): uid, d.Layout.Config(r): 0} {
			has, group, err := d.Accounts.Owner(name)
			switch {
			case err != nil && d.isAbsent(name):
			case err != nil:
				found = append(found, finding.Warned("owner", err.Error(), "", ""))
			case has != owner && has != uid || ok && group != gid:
				found = append(found, finding.Faulty("owner", fmt.Sprintf("%s is of user %d and group %d, wanted %d and %d", name, has, group, owner, gid),
					layout.Unit(r)+" runs as "+user+" and can't use it", fmt.Sprintf("chown -R %d:%d %s", owner, gid, name)))
			}
		}
	}
	if len(found) == 0 && len(p.Roles) > 0 {
		found = append(found, finding.Well("owners", "each process's files are its own"))
	}
	return found
}

func (d *Doctor) isAbsent(name string) bool {
	_, err := d.Env.Files.Stat(name)
	return errors.Is(err, fs.ErrNotExist)
}
