package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lab is a worker's copy of the source, in which at most one patch is applied at a time, and a place for a test binary.
type lab struct {
	dir, binary string
}

// tryAll judges the mutants of one package.
func (l *lab) tryAll(ctx context.Context, group []mutant, r *report) {
	healthy := l.green(ctx, group)
	for _, m := range group {
		start := time.Now()
		err := healthy[m.target]
		if err == nil {
			err = l.try(ctx, m)
		}
		r.judge(m, start, err)
		if ctx.Err() != nil {
			return
		}
	}
}

// green tells, for each test that mutants of one package name, why it says nothing: without a patch it must be green.
func (l *lab) green(ctx context.Context, group []mutant) map[target]error {
	faults := map[target]error{}
	broken := build(ctx, l.dir, group[0].target.pack, l.binary)
	for _, m := range group {
		if _, known := faults[m.target]; known {
			continue
		}
		err := broken
		if err == nil {
			err = l.passes(ctx, m.target)
		}
		faults[m.target] = err
	}
	return faults
}

func (l *lab) passes(ctx context.Context, t target) error {
	result, err := runTest(ctx, l.dir, l.binary, t)
	switch {
	case err != nil:
		return err
	case len(result.failed) > 0:
		return fmt.Errorf("%s is red without the patch:\n%s", t, result.output)
	case len(result.passed) == 0:
		return fmt.Errorf("%s matches no test that ran and passed", t)
	}
	return nil
}

// try applies one mutant, runs its test and takes the mutant back. A nil error means that the test turned red.
func (l *lab) try(ctx context.Context, m mutant) error {
	// Step 1: the patch must apply, or the guarantee that it removes has moved.
	if err := git(ctx, l.dir, "apply", m.file); err != nil {
		return fmt.Errorf("the patch no longer applies: %w", err)
	}
	// Step 2: red, by a test.
	verdict := l.turnsRed(ctx, m.target)
	// Step 3: the copy is healthy again for the next one, whatever the outcome; also after an interrupt.
	if err := git(context.WithoutCancel(ctx), l.dir, "apply", "--reverse", m.file); err != nil {
		return fmt.Errorf("take the patch back: %w", err)
	}
	return verdict
}

func (l *lab) turnsRed(ctx context.Context, t target) error {
	err := build(ctx, l.dir, t.pack, l.binary)
	if unbuilt, ok := errors.AsType[faulty](err); ok {
		return fmt.Errorf("the mutant does not build, so no test judged it:\n%w", unbuilt)
	}
	if err != nil {
		return err
	}
	result, err := runTest(ctx, l.dir, l.binary, t)
	if err != nil {
		return err
	}
	if len(result.failed) == 0 {
		return fmt.Errorf("%s stayed green", t)
	}
	return nil
}
