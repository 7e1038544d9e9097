package main

import (
	"context"
	"fmt"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/shoalproject/shoal/test/harness"
)

// onHost makes a verb that takes a host.
func (a *app) onHost(verb, short string, do func(*harness.Lab, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " HOST", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			return do(lab, cmd.Context(), args[0])
		},
	}
}

// onProcess makes a verb that takes a host and a process.
func (a *app) onProcess(verb, short string, do func(*harness.Lab, context.Context, string, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " HOST PROCESS", Short: short, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			return do(lab, cmd.Context(), args[0], args[1])
		},
	}
}

func (a *app) hostVerbs() []*cobra.Command {
	return []*cobra.Command{
		a.onHost("poweroff", "Cut a host's power", (*harness.Lab).PowerOff),
		a.onHost("poweron", "Boot a host that is off", (*harness.Lab).PowerOn),
		a.onProcess("start", "Let the host's init start a process", (*harness.Lab).Start),
		a.onProcess("stop", "Let the host's init stop a process (SIGTERM)", (*harness.Lab).Stop),
		a.onProcess("kill", "End a process by SIGKILL; its init starts it again", (*harness.Lab).Kill),
		a.onProcess("pause", "Freeze a process (SIGSTOP)", (*harness.Lab).Pause),
		a.onProcess("resume", "Let a frozen process go on (SIGCONT)", (*harness.Lab).Resume),
		a.disk(),
	}
}

func (a *app) networkVerbs() []*cobra.Command {
	partition := &cobra.Command{
		Use: "partition SIDE/SIDE[/…]", Short: "Cut all traffic between sides, such as m1,m2/w1,w2", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			return lab.Partition(cmd.Context(), harness.ParseSides(args[0])...)
		},
	}
	heal := &cobra.Command{
		Use: "heal", Short: "End every network fault", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := a.open()
			if err != nil {
				return err
			}
			return lab.Heal(cmd.Context())
		},
	}
	return []*cobra.Command{
		partition, heal,
		a.onHost("isolate", "Lose every packet from and to a host", (*harness.Lab).Isolate),
		a.onHost("unplug", "Pull a host's cable", (*harness.Lab).Unplug),
		a.onHost("plug", "Put a host's cable back in", (*harness.Lab).Plug),
	}
}

func (a *app) disk() *cobra.Command {
	var size string
	command := &cobra.Command{
		Use: "disk HOST --size SIZE", Short: "Put a host's data folders on a small file system (boots the host anew)",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bytes, err := units.RAMInBytes(size)
			if err != nil {
				return fmt.Errorf("--size: %w; write it as 64M or 1G", err)
			}
			lab, err := a.open()
			if err != nil {
				return err
			}
			return lab.Disk(cmd.Context(), args[0], bytes)
		},
	}
	command.Flags().StringVar(&size, "size", "64M", "size of the file system")
	return command
}
