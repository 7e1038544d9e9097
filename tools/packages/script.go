package main

import (
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/goreleaser/nfpm/v2"
)

// scripts writes a package's maintainer scripts, made from those in deploy/packages/scripts. A package of packages has none.
func scripts(root, dir string, p pkg) (nfpm.Scripts, error) {
	var out nfpm.Scripts
	if p.all {
		return out, nil
	}
	for name, field := range map[string]*string{
		"postinstall": &out.PostInstall, "preremove": &out.PreRemove, "postremove": &out.PostRemove,
	} {
		path := filepath.Join(dir, p.name+"."+name)
		if err := script(filepath.Join(root, "deploy", "packages", "scripts", name+".sh"), path, p); err != nil {
			return out, err
		}
		*field = path
	}
	return out, nil
}

func script(from, to string, p pkg) (err error) {
	t, err := template.ParseFiles(from)
	if err != nil {
		return fmt.Errorf("maintainer script: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	return t.Option("missingkey=error").Execute(f, map[string]any{
		"Name": p.name, "Process": p.process, "User": p.user, "Tmpfiles": p.process == "" || p.process == "meshproxy",
	})
}
