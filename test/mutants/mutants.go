package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
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
	copied, err := os.MkdirTemp("", "shoal-mutants-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if err := copySource(ctx, root, copied); err != nil {
		return 0, fmt.Errorf("copy the source: %w", err)
	}
	l := lab{dir: copied, healthy: map[target]error{}}
	for _, m := range mutants {
		start := time.Now()
		verdict := "caught"
		if err := l.try(ctx, m); err != nil {
			verdict = "MISSED: " + err.Error()
			failed++
		}
		fmt.Fprintf(out, "%-28s %6.1fs  %s\n%30s %s\n%30s %s\n", m.name, time.Since(start).Seconds(), verdict, "", m.promise, "", m.target)
		if ctx.Err() != nil {
			return failed, ctx.Err()
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", len(mutants)-failed, failed)
	return failed, nil
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

// lab is the copy of the source, in which at most one patch is applied at a time.
type lab struct {
	dir     string
	healthy map[target]error // outcome of a test on the unchanged copy, once for all mutants that name it
}

// try applies one mutant, runs its test and takes the mutant back. A nil error means that the test turned red.
func (l *lab) try(ctx context.Context, m mutant) error {
	// Step 1: the test must be green without the patch, or its red would say nothing.
	err, known := l.healthy[m.target]
	if !known {
		err = l.green(ctx, m.target)
		l.healthy[m.target] = err
	}
	if err != nil {
		return err
	}
	// Step 2: the patch must apply, or the guarantee that it removes has moved.
	if err := git(ctx, l.dir, "apply", m.file); err != nil {
		return fmt.Errorf("the patch no longer applies: %w", err)
	}
	// Step 3: red, by a test.
	result, err := runTest(ctx, l.dir, m.target)
	// Step 4: the copy is healthy again for the next one, whatever the outcome; also after an interrupt.
	if undo := git(context.WithoutCancel(ctx), l.dir, "apply", "--reverse", m.file); undo != nil {
		return fmt.Errorf("take the patch back: %w", undo)
	}
	switch {
	case err != nil:
		return err
	case result.buildFailed:
		return fmt.Errorf("the mutant does not build, so no test judged it:\n%s", result.output)
	case len(result.failed) == 0:
		return fmt.Errorf("%s stayed green", m.target)
	}
	return nil
}

func (l *lab) green(ctx context.Context, t target) error {
	result, err := runTest(ctx, l.dir, t)
	switch {
	case err != nil:
		return err
	case result.buildFailed || len(result.failed) > 0:
		return fmt.Errorf("%s is red without the patch:\n%s", t, result.output)
	case len(result.passed) == 0:
		return fmt.Errorf("%s matches no test that ran and passed", t)
	}
	return nil
}
