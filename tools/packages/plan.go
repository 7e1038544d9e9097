package main

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
)

// pkg is one package, the same in all formats but for names.
type pkg struct {
	name    string
	summary string // one line
	text    string // the lines below it
	all     bool   // the same for all architectures: it has no binary
	process string // the process in it; empty: none
	user    bool   // the process has a user of its own
	deps    []dep
	files   []file
}

// dep is another package that must be there.
type dep struct {
	name  string
	or    string // another one that will do; empty: none
	exact bool   // of this version; else, if ours, of this version or a later one
	ours  bool
}

// file is one file of a package: where it comes from, and where it goes.
type file struct {
	from, to string
	mode     uint32
}

// process is one of ours, for the table below.
type process struct {
	name, does string
	root       bool // runs as root: no user
	deps       []dep
	more       []string // other programs that it starts
}

func control() []process {
	return []process{
		{name: "ca", does: "vouches: signs certificates, checks join tokens"},
		{name: "store", does: "remembers and admits: Raft, the objects, the control API"},
		{name: "scheduler", does: "decides which machine runs which task"},
		{name: "dispatcher", does: "delivers tasks to machines, judges which of them live"},
		{name: "gateway", does: "translates REST and gRPC of people"},
	}
}

func node() []process {
	return []process{
		{name: "agent", does: "runs a machine's containers on containerd", root: true, deps: []dep{
			{name: "containerd", or: "containerd.io"}, {name: "runc", or: "containerd.io"},
		}, more: []string{"shoal-logger"}},
		{name: "meshproxy", does: "answers on published ports, connects networks"},
	}
}

func shells() []string { return []string{"bash", "zsh", "fish"} }

// programs are all binaries.
func programs() []string {
	names := []string{"shoal"}
	for _, p := range slices.Concat(control(), node()) {
		names = append(names, append([]string{"shoal-" + p.name}, p.more...)...)
	}
	return names
}

// plan is all packages of an architecture. Work has what was built, root the repository.
func plan(root, work, arch, format string) []pkg {
	units := filepath.Join(root, "deploy", "systemd")
	cli := pkg{
		name: "shoal", summary: "turns a group of machines into one: the command line",
		text: "It begins clusters, lets machines join and leave them, and says what runs on them. The package also has\n" +
			"what all processes of a machine share: the group shoal, /run/shoal, and shoal.target.",
		files: []file{
			{filepath.Join(binDir(work, arch), "shoal"), "/usr/bin/shoal", 0o755},
			{filepath.Join(units, "shoal.target"), "/usr/lib/systemd/system/shoal.target", 0o644},
			{filepath.Join(units, "sysusers.d", "shoal.conf"), "/usr/lib/sysusers.d/shoal.conf", 0o644},
			{filepath.Join(units, "tmpfiles.d", "shoal.conf"), "/usr/lib/tmpfiles.d/shoal.conf", 0o644},
			{completion(work, "bash"), "/usr/share/bash-completion/completions/shoal", 0o644},
			{completion(work, "zsh"), zshDir(format) + "/_shoal", 0o644},
			{foreign(work), "/usr/share/doc/shoal/third-party-licences.txt", 0o644},
			{completion(work, "fish"), "/usr/share/fish/vendor_completions.d/shoal.fish", 0o644},
		},
	}
	out := []pkg{cli}
	for _, p := range slices.Concat(control(), node()) {
		out = append(out, single(p, units, binDir(work, arch)))
	}
	out = append(out,
		meta("shoal-node", "a machine that runs containers or takes traffic", node()),
		meta("shoal-manager", "all that `shoal init` starts: a manager that is a node, too", slices.Concat(control(), node())))
	for i := range out {
		out[i].files = append(out[i].files, file{filepath.Join(root, "LICENSE"), licence(format, out[i].name), 0o644})
	}
	return out
}

// single is the package of one process.
func single(p process, units, bin string) pkg {
	name := "shoal-" + p.name
	out := pkg{
		name: name, summary: "shoal's " + p.name + ": " + p.does, process: p.name, user: !p.root,
		text: "One process of shoal, for a machine that runs some of them. Installing it starts nothing: `shoal init`\nand `shoal join` do.",
		deps: append([]dep{{name: "shoal", ours: true}}, p.deps...),
		files: []file{
			{filepath.Join(bin, name), "/usr/bin/" + name, 0o755},
			{filepath.Join(units, name+".service"), "/usr/lib/systemd/system/" + name + ".service", 0o644},
		},
	}
	for _, name := range p.more {
		out.files = append(out.files, file{filepath.Join(bin, name), "/usr/bin/" + name, 0o755})
	}
	if out.user {
		conf := name + ".conf"
		out.files = append(out.files, file{filepath.Join(units, "sysusers.d", conf), "/usr/lib/sysusers.d/" + conf, 0o644})
	}
	if p.name == "meshproxy" {
		conf := name + ".conf"
		out.files = append(out.files, file{filepath.Join(units, "tmpfiles.d", conf), "/usr/lib/tmpfiles.d/" + conf, 0o644})
	}
	return out
}

// meta is a package of packages, all of one version.
func meta(name, summary string, of []process) pkg {
	out := pkg{name: name, summary: "shoal: " + summary, text: "It only depends on the packages of single processes.", all: true}
	out.deps = append(out.deps, dep{name: "shoal", ours: true, exact: true})
	for _, p := range of {
		out.deps = append(out.deps, dep{name: "shoal-" + p.name, ours: true, exact: true})
	}
	return out
}

func zshDir(format string) string {
	if format == "deb" {
		return "/usr/share/zsh/vendor-completions"
	}
	return "/usr/share/zsh/site-functions"
}

func licence(format, name string) string {
	if format == "deb" {
		return path.Join("/usr/share/doc", name, "copyright")
	}
	return path.Join("/usr/share/licenses", name, "LICENSE")
}

// relation is a dependency in a format's words.
func (d dep) relation(format, version string) string {
	name := d.name
	switch {
	case d.or != "" && format == "deb":
		name = d.name + " | " + d.or
	case d.or != "":
		name = fmt.Sprintf("(%s or %s)", d.name, d.or)
	}
	sign := ">="
	if d.exact {
		sign = "="
	}
	switch {
	case !d.ours:
		return name
	case format == "deb":
		return fmt.Sprintf("%s (%s %s)", name, sign, version)
	}
	return fmt.Sprintf("%s %s %s", name, sign, version)
}
