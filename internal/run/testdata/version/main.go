// Command version is a process that only the test of -version builds.
package main

import (
	"context"

	"github.com/shoalproject/shoal/internal/run"
)

func main() {
	run.Main("probe", struct{}{}, func(context.Context, struct{}, run.Env) error { return nil })
}
