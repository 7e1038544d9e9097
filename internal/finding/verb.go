package finding

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"

	"github.com/shoalproject/shoal/internal/config"
	"github.com/shoalproject/shoal/internal/errs"
)

// Verb is the verb `doctor` of a process's program: it looks and prints the findings, and returns the exit code: 0, 1 with a
// fault, 2 for flags that are wrong. A machine is looked at before it has a config, too: then the defaults are taken, and
// those of a file that can't be used, which is told.
func Verb[C any](files config.Files, name string, args []string, out, said io.Writer, def C, look func(cfg C) []Finding) int {
	flags := flag.NewFlagSet("shoal-"+name+" doctor", flag.ContinueOnError)
	flags.SetOutput(said)
	file := flags.String("config", "/etc/shoal/"+name+".yaml", "the process's config `file`")
	format := flags.String("format", "", "json, or none for a line a finding")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case flags.NArg() > 0 || *format != "" && *format != "json":
		flags.Usage()
		return 2
	}
	cfg, found := load(files, *file, def)
	found = append(found, look(cfg)...)
	if err := Print(out, found, *format); err != nil {
		fmt.Fprintln(said, err)
		return 1
	}
	if len(Faults(found)) > 0 {
		return 1
	}
	return 0
}

// unchecked is a config without its Validate: half a file, without addresses say, says where containerd is nevertheless.
type unchecked[C any] struct {
	Config C `yaml:",inline"`
}

func load[C any](files config.Files, file string, def C) (C, []Finding) {
	data, err := files.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return def, nil
	}
	var cfg unchecked[C]
	if err == nil {
		cfg, err = config.Parse(file, data, unchecked[C]{Config: def})
	}
	if err != nil {
		why := "the defaults were looked at instead"
		if errs.KindOf(err) == errs.Invalid {
			return def, []Finding{Warned("configuration", err.Error(), why, "mend the file")}
		}
		return def, []Finding{Warned("configuration", fmt.Sprintf("read %s: %s", file, err), why, "")}
	}
	return cfg.Config, nil
}
