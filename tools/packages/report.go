package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// sums is the file with the packages' digests, in sha256sum's form.
const sums = "SHA256SUMS"

// report writes the digests, and tells the sizes.
func report(o order, work string, out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, arch := range o.arches {
		for _, name := range programs() {
			info, err := os.Stat(filepath.Join(binDir(work, arch), name))
			if err != nil {
				return err
			}
			fmt.Fprintf(w, "%s, %s\t%s\n", name, arch, mega(info.Size()))
		}
	}
	entries, err := os.ReadDir(o.out)
	if err != nil {
		return err
	}
	var digests bytes.Buffer
	for _, e := range entries {
		if e.Name() == sums || e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(o.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&digests, "%x  %s\n", sha256.Sum256(data), e.Name())
		fmt.Fprintf(w, "%s\t%s\n", e.Name(), mega(int64(len(data))))
	}
	if err := writePublic(filepath.Join(o.out, sums), digests.Bytes()); err != nil {
		return err
	}
	return w.Flush()
}

func mega(n int64) string {
	if n < 100_000 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
