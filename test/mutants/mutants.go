package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// patchDir is where the mutants are, from the root of the repository.
const patchDir = "test/mutants/patches"

// Run takes every mutant of the repository in root whose name matches filter, prints a line for each to out, and
// returns how many were not caught. Its error is about what keeps it from trying at all.
func Run(ctx context.Context, root, filter string, out io.Writer) (failed int, err error) {
	mutants, err := list(filepath.Join(root, patchDir), filter)
	if err != nil {
		return 0, err
	}
	temp, err := os.MkdirTemp("", "shoal-mutants-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()

	// A copy of the source a worker; each takes the mutants of one package after those of another.
	queue := byPackage(mutants)
	r := report{out: out}
	work, ctx := errgroup.WithContext(ctx)
	for i := range min(runtime.NumCPU(), len(queue)) {
		work.Go(func() error {
			l := lab{dir: filepath.Join(temp, strconv.Itoa(i), "source"), binary: filepath.Join(temp, strconv.Itoa(i), "test")}
			if err := copySource(ctx, root, l.dir); err != nil {
				return fmt.Errorf("copy the source: %w", err)
			}
			for group := r.take(&queue); len(group) > 0; group = r.take(&queue) {
				l.tryAll(ctx, group, &r)
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		return r.failed, err
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", len(mutants)-r.failed, r.failed)
	return r.failed, nil
}

// byPackage groups mutants by the package whose test judges them, the largest group first: it takes the longest.
func byPackage(mutants []mutant) [][]mutant {
	packs := map[pack][]mutant{}
	for _, m := range mutants {
		packs[m.target.pack] = append(packs[m.target.pack], m)
	}
	groups := slices.Collect(maps.Values(packs))
	slices.SortFunc(groups, func(a, b []mutant) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a[0].name, b[0].name))
	})
	return groups
}

// report is what all workers share: the groups still to take, and what was said of those taken.
type report struct {
	mu     sync.Mutex
	out    io.Writer
	failed int
}

// take removes the next group from the queue for one worker; none is left when it is empty.
func (r *report) take(queue *[][]mutant) (group []mutant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(*queue) > 0 {
		group, *queue = (*queue)[0], (*queue)[1:]
	}
	return group
}

// judge counts and prints one mutant's verdict; nil is a caught one.
func (r *report) judge(m mutant, since time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	verdict := "caught"
	if err != nil {
		verdict = "MISSED: " + err.Error()
		r.failed++
	}
	fmt.Fprintf(r.out, "%-28s %6.1fs  %s\n%30s %s\n%30s %s\n", m.name, time.Since(since).Seconds(), verdict, "", m.promise, "", m.target)
}

func list(dir, filter string) ([]mutant, error) {
	match, err := regexp.Compile(filter)
	if err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var mutants []mutant
	var faults []error
	for _, file := range files {
		m, err := parse(file)
		if err != nil {
			faults = append(faults, err)
		} else if match.MatchString(m.name) {
			mutants = append(mutants, m)
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	if len(mutants) == 0 {
		return nil, fmt.Errorf("no patch in %s matches %q", dir, filter)
	}
	return mutants, nil
}
