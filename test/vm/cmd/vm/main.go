// Command vm boots a virtual machine that sees the project, Go and its caches, runs each line of its input there as a script,
// by root, and ends the machine with its input: for trying by hand what make test-vm runs.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/shoalproject/shoal/test/vm"
)

func main() {
	accel := flag.String("accel", "kvm", "qemu's accelerator; tcg needs no /dev/kvm and takes many times as long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *accel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, accel string) (err error) {
	root, shared, err := vm.Project(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/var/tmp", "shoal-vm-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	machine, err := vm.Boot(ctx, vm.Options{
		Dir: dir, Root: root, Share: shared, Accel: accel, Cache: filepath.Join(root, ".cache", "vm"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, machine.Close()) }()
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := machine.Pipe(ctx, lines.Text(), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Fprintln(os.Stderr, "---")
	}
	return nil
}
