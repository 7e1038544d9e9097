package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/harness/hollow"
)

// hollow plays machines until it is told to stop.
func (a *app) hollow() *cobra.Command {
	nodes := 0
	command := &cobra.Command{
		Use: "hollow --nodes N", Short: "Join N machines that run real agents over containers in memory, until interrupted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			log := logger()
			fleet, err := hollow.InLab(cmd.Context(), lab, nodes, log)
			if err != nil {
				return err
			}
			if err := fleet.Join(cmd.Context()); err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			watch := run.Async(ctx, func(ctx context.Context) (struct{}, error) {
				fleet.Watch(ctx)
				return struct{}{}, nil
			})
			err = fleet.Run(ctx)
			cancel()
			return errors.Join(err, (<-watch).Err)
		},
	}
	command.Flags().IntVar(&nodes, "nodes", 100, "number of machines, named hollow-0001, hollow-0002, …")
	return command
}
