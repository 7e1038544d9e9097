// Command images packs the processes' programs into container images, without a daemon and without a base image.
//
// It writes, for each image and architecture, an archive for `docker load`, and one OCI archive of all images for all
// architectures, for registries and containerd. It never runs what it packs, and asks the network nothing: the same
// programs with the same version, commit and date give the same bytes.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// order is what to pack.
type order struct {
	binaries string   // folder with a folder of programs an architecture
	out      string   // folder of the archives; what is in it goes
	licence  string   // our licence's text
	foreign  string   // the licences of all code of others in the programs
	arches   []string // as Go names them
	version  string   // the images' tag
	revision string   // the commit
	date     time.Time
}

func main() {
	o, err := parse(os.Args[1:])
	if err == nil {
		err = o.pack()
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1) //nolint:forbidigo // this is main
	}
}

func parse(args []string) (order, error) {
	var o order
	flags := flag.NewFlagSet("images", flag.ContinueOnError)
	flags.StringVar(&o.binaries, "binaries", "", "`folder` with a folder of programs an architecture")
	flags.StringVar(&o.out, "out", "dist/images", "`folder` of the archives; what is in it is replaced")
	flags.StringVar(&o.licence, "licence", "LICENSE", "`file` with the licence")
	flags.StringVar(&o.foreign, "foreign", "", "`file` with the licences of all code of others in the programs, which ask for it")
	flags.StringVar(&o.version, "version", "", "the images' `tag`")
	flags.StringVar(&o.revision, "revision", "", "the `commit` that the programs were built from")
	arches := flags.String("arch", "amd64,arm64", "`architectures`, as Go names them")
	date := flags.String("date", "", "the commit's `time`, as in RFC 3339: the only one in the images")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.date, err = time.Parse(time.RFC3339, *date); err != nil {
		return o, fmt.Errorf("-date: %w", err)
	}
	o.date = o.date.UTC()
	o.arches = strings.Split(*arches, ",")
	for name, value := range map[string]string{"-binaries": o.binaries, "-foreign": o.foreign, "-version": o.version, "-revision": o.revision} {
		if value == "" {
			return o, fmt.Errorf("%s is missing", name)
		}
	}
	return o, nil
}

// pack writes all archives into a folder beside the final one, so that a failure leaves the old ones whole.
func (o order) pack() error {
	fresh := strings.TrimRight(o.out, "/") + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
		return err
	}
	all := newArchive(filepath.Join(fresh, "oci"))
	for _, arch := range o.arches {
		layers, err := o.layers(arch)
		if err != nil {
			return err
		}
		for _, r := range recipes() {
			image, err := o.image(r, arch, layers)
			if err != nil {
				return fmt.Errorf("image %s for %s: %w", r.name, arch, err)
			}
			name := filepath.Join(fresh, fmt.Sprintf("%s_%s_%s.tar", r.name, o.version, arch))
			if err := load(name, r.name+":"+o.version, image); err != nil {
				return err
			}
			all.add(r.name, arch, image)
		}
	}
	if err := all.write(filepath.Join(fresh, fmt.Sprintf("shoal-images_%s.oci.tar", o.version)), o.version, o.date); err != nil {
		return err
	}
	if err := os.RemoveAll(o.out); err != nil {
		return err
	}
	return os.Rename(fresh, o.out)
}
