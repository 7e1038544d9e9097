package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/images"
	"github.com/shoalproject/shoal/test/harness/keeper"
)

// hidden are the lab's own processes, started by the verbs, and what `make build` calls. Their flags are there to be
// seen in a process list; what they work on comes by their standard input.
func hidden() []*cobra.Command {
	init := &cobra.Command{
		Use: "host-init", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hostinit.Run(context.WithoutCancel(cmd.Context()), logger())
		},
	}
	keep := &cobra.Command{
		Use: "host-keeper", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return keeper.Run(os.Stdin, os.Stdout) },
	}
	for _, command := range []*cobra.Command{init, keep} {
		command.Flags().String("host", "", "the host's name")
	}
	registry := &cobra.Command{
		Use: "registry", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return images.Serve(cmd.Context(), os.Stdin, os.Stdout, os.Stderr)
		},
	}
	build := &cobra.Command{
		Use: "images", Hidden: true, Args: cobra.NoArgs, Short: "Build the test images into bin/images unless they are there",
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			layout, err := images.Ensure(cmd.Context(), filepath.Join(filepath.Dir(self), "images"), logger())
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), layout)
			}
			return err
		},
	}
	return []*cobra.Command{init, keep, registry, build}
}
