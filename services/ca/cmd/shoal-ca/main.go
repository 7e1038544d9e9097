// Command shoal-ca vouches: it signs the certificates of a cluster's processes and people, and checks join tokens.
// `shoal-ca bootstrap -config FILE` begins a cluster, offline, and prints what `shoal init` needs as JSON. That has secrets.
package main

import (
	"context"
	"encoding/json"
	"os"

	cfssllog "github.com/cloudflare/cfssl/log"

	"github.com/shoalproject/shoal/internal/process"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/services/ca"
)

func main() {
	cfssllog.Level = cfssllog.LevelError // its lines are not ours: every issue has an audit line of our own
	if len(os.Args) > 1 && os.Args[1] == "bootstrap" {
		os.Args = append(os.Args[:1:1], os.Args[2:]...)
		run.Main("shoal-ca-bootstrap", ca.DefaultBootstrapConfig(), bootstrap)
	}
	process.Main("ca", ca.DefaultConfig(), ca.Run, "bootstrap -config file\n    \tbegin a cluster, offline; `shoal init` calls it")
}

func bootstrap(_ context.Context, cfg ca.BootstrapConfig, env run.Env) error {
	result, err := ca.Bootstrap(cfg, env)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(result)
}
