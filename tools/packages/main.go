// Command packages builds what people install: .deb, .rpm and tarballs, for each architecture, with nfpm. `make packages`
// calls it.
//
// Its output depends on the tree, the version, the commit and the commit's date alone: built twice, the bytes are equal. It
// is a module of its own, because nfpm's requirements would raise those of the linters in tools/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); errors.Is(err, flag.ErrHelp) {
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "packages:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

// order is what is to be built.
type order struct {
	root    string // of the repository
	out     string // folder for the packages
	version string // v1.2.3, or a pseudo-version
	commit  string
	date    time.Time // of the commit: the time of everything in a package
	arches  []string
	formats []string
	// licences is a file for the licences of what is linked in: they alone are written then, for who packs otherwise.
	licences string
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "shoal-packages-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if o.licences != "" {
		return (&builder{order: o, dir: work}).licences(ctx, o.licences)
	}
	// Step 1: the binaries, from one of them the completions, and the licences of what is linked into them.
	b := &builder{order: o, dir: work}
	if err := b.binaries(ctx); err != nil {
		return err
	}
	if err := b.completions(ctx); err != nil {
		return err
	}
	if err := b.licences(ctx, foreign(work)); err != nil {
		return err
	}
	// Step 2: the packages of what is there. Those of another build in the same folder would be taken for its own.
	if err := empty(o.out); err != nil {
		return err
	}
	if err := writeAll(o, work); err != nil {
		return err
	}
	// Step 3: what came out.
	return report(o, work, out)
}

func parse(args []string) (order, error) {
	flags := flag.NewFlagSet("packages", flag.ContinueOnError)
	var o order
	var date, arches, formats string
	flags.StringVar(&o.root, "root", ".", "the repository's `folder`")
	flags.StringVar(&o.out, "out", "dist", "the `folder` for the packages; those in it are replaced")
	flags.StringVar(&o.version, "version", "", "the `version`, as v1.2.3")
	flags.StringVar(&o.commit, "commit", "", "the commit's `hash`")
	flags.StringVar(&date, "date", "", "the commit's `time`, as 2006-01-02T15:04:05Z")
	flags.StringVar(&arches, "arch", "amd64,arm64", "`architectures`")
	flags.StringVar(&o.licences, "licences", "", "write the licences of all code of others into this `file`, and nothing else")
	flags.StringVar(&formats, "format", "deb,rpm,tar", "`formats`")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("takes no arguments, got %q", flags.Args())
	}
	o.arches, o.formats = strings.Split(arches, ","), strings.Split(formats, ",")
	var faults []error
	if o.version == "" {
		faults = append(faults, errors.New("-version is empty; give one, as v1.2.3"))
	}
	var err error
	if o.date, err = time.Parse(time.RFC3339, date); err != nil {
		faults = append(faults, fmt.Errorf("-date: %w", err))
	}
	o.date = o.date.UTC()
	for _, a := range o.arches {
		if a != "amd64" && a != "arm64" {
			faults = append(faults, fmt.Errorf("-arch: %q is not amd64 or arm64", a))
		}
	}
	for _, f := range o.formats {
		if f != "deb" && f != "rpm" && f != "tar" {
			faults = append(faults, fmt.Errorf("-format: %q is not deb, rpm or tar", f))
		}
	}
	for _, p := range []*string{&o.root, &o.out} {
		if *p, err = filepath.Abs(*p); err != nil {
			faults = append(faults, err)
		}
	}
	return o, errors.Join(faults...)
}

// empty makes the folder, and removes from it what an earlier run wrote, and nothing else.
func empty(out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"shoal*.deb", "shoal*.rpm", "shoal*.tar.gz", sums} {
		old, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil {
			return err
		}
		for _, name := range old {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}
