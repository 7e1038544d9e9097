package main

import (
	"archive/tar"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers itself
)

const (
	homepage   = "https://github.com/shoalproject/shoal"
	maintainer = "The shoal authors <packages@shoalproject.invalid>"
)

// writeAll writes every package of the order.
func writeAll(o order, work string) error {
	for i, arch := range o.arches {
		for _, format := range o.formats {
			pkgs := plan(o.root, work, arch, format)
			if format == "tar" {
				if err := writeTar(o, arch, pkgs); err != nil {
					return fmt.Errorf("tarball for %s: %w", arch, err)
				}
				continue
			}
			for _, p := range pkgs {
				if p.all && i > 0 {
					continue // it is there already
				}
				if err := writePackage(o, work, arch, format, p); err != nil {
					return fmt.Errorf("%s.%s for %s: %w", p.name, format, arch, err)
				}
			}
		}
	}
	return nil
}

func writePackage(o order, work, arch, format string, p pkg) error {
	info, err := describe(o, work, arch, format, p)
	if err != nil {
		return err
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(o.out, packager.ConventionalFileName(info))) //nolint:gosec // the name is made from our own
	if err != nil {
		return err
	}
	return errors.Join(packager.Package(info, f), f.Close())
}

// describe puts a package into nfpm's form. All times in it are the commit's.
func describe(o order, work, arch, format string, p pkg) (*nfpm.Info, error) {
	version := packageVersion(o.version)
	if p.all {
		arch = "all"
	}
	info := &nfpm.Info{
		Name: p.name, Arch: arch, Platform: "linux", Version: version, VersionSchema: "none", Release: "1",
		Section: "admin", Priority: "optional", Maintainer: maintainer, Vendor: "shoal", Homepage: homepage, License: "Apache-2.0",
		Description: p.summary + "\n" + p.text, MTime: o.date, DisableGlobbing: true,
	}
	if format == "deb" {
		info.Release = "" // it would become a Debian revision
	}
	if format == "rpm" {
		info.Description = p.text // it has the summary as a field of its own
	}
	info.RPM.Summary, info.RPM.BuildHost, info.RPM.Group = p.summary, "shoal", "System"
	info.RPM.Compression, info.Deb.Compression = "zstd", "zstd"
	for _, d := range p.deps {
		info.Depends = append(info.Depends, d.relation(format, version))
	}
	if format == "rpm" && !p.all {
		info.Depends = append(info.Depends, "/bin/sh") // runs the scripts: rpmbuild would say so, and dpkg takes it for granted
	}
	for _, f := range p.files {
		info.Contents = append(info.Contents, &files.Content{
			Source: f.from, Destination: f.to,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: os.FileMode(f.mode), MTime: o.date},
		})
	}
	var err error
	info.Scripts, err = scripts(o.root, filepath.Join(work, "scripts"), p)
	return nfpm.WithDefaults(info), err
}

// writeTar writes all packages' files as one tree, for machines without a package manager.
func writeTar(o order, arch string, pkgs []pkg) (err error) {
	top := fmt.Sprintf("shoal-%s-linux-%s", packageVersion(o.version), arch)
	f, err := os.Create(filepath.Join(o.out, top+".tar.gz"))
	if err != nil {
		return err
	}
	zip, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	tree := tar.NewWriter(zip)
	defer func() { err = errors.Join(err, tree.Close(), zip.Close(), f.Close()) }()
	all := []file{
		{from: filepath.Join(o.root, "LICENSE"), to: "/LICENSE", mode: 0o644},
		{from: filepath.Join(o.root, "deploy", "packages", "README.md"), to: "/README.md", mode: 0o644},
	}
	for _, p := range pkgs {
		for _, f := range p.files {
			if !strings.HasPrefix(f.to, "/usr/share/licenses") {
				all = append(all, f)
			}
		}
	}
	slices.SortFunc(all, func(a, b file) int { return cmp.Compare(a.to, b.to) })
	made := map[string]bool{}
	for _, f := range all {
		if err := addDirs(tree, o, top, path.Dir(f.to), made); err != nil {
			return err
		}
		if err := addFile(tree, o, top, f); err != nil {
			return err
		}
	}
	return nil
}

func addDirs(tree *tar.Writer, o order, top, dir string, made map[string]bool) error {
	if made[dir] {
		return nil
	}
	made[dir] = true
	if dir != "/" {
		if err := addDirs(tree, o, top, path.Dir(dir), made); err != nil {
			return err
		}
	}
	return tree.WriteHeader(&tar.Header{
		Typeflag: tar.TypeDir, Name: strings.TrimSuffix(top+dir, "/") + "/", Mode: 0o755, ModTime: o.date, Format: tar.FormatUSTAR,
	})
}

func addFile(tree *tar.Writer, o order, top string, f file) error {
	in, err := os.Open(f.from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	err = tree.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: top + f.to, Mode: int64(f.mode), Size: info.Size(), ModTime: o.date, Format: tar.FormatUSTAR,
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(tree, in)
	return err
}
