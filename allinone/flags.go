package allinone

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoalproject/shoal/internal/contexts"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"

	"github.com/shoalproject/shoal/allinone/internal/person"
	"github.com/shoalproject/shoal/allinone/internal/screen"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitMisuse = 2
)

// longestData leaves room for the longest name of a socket below the folder: unix(7) gives it 108 bytes.
const longestData = 64

// Config is what the flags say.
type Config struct {
	// Data is the cluster's folder.
	Data string
	// Advertise is the address that is advertised and listened on.
	Advertise string
	// Containerd is its socket, Snapshotter one that it has.
	Containerd, Snapshotter string
	// Context is the name of the person's context.
	Context string
	// Keep leaves containers running at the end.
	Keep bool
	// LogFormat is text or json, LogLevel debug, info, warn or error.
	LogFormat, LogLevel string
}

// Validate returns all faults at once.
func (c Config) Validate() error {
	var f errs.Collector
	f.Check(path.IsAbs(c.Data) && path.Clean(c.Data) != "/", "data", "%q is not a folder of its own; name one, such as /var/tmp/shoal-dev", c.Data)
	f.Check(len(c.Data) <= longestData, "data", "%q is longer than %d characters, which the names of sockets in it can't take; name another folder", c.Data, longestData)
	_, err := netip.ParseAddr(c.Advertise)
	f.Check(err == nil, "advertise-addr", "%q is no IP address", c.Advertise)
	f.Check(path.IsAbs(c.Containerd), "containerd", "%q is not the absolute path of a socket", c.Containerd)
	f.Check(c.Snapshotter != "", "snapshotter", "name one that containerd has, such as overlayfs")
	f.Check(contexts.ValidName(c.Context), "context", "%q: a name has letters, digits, - . and _, at most 63", c.Context)
	f.Check(slices.Contains([]string{screen.Text, screen.JSON}, c.LogFormat), "log-format", "%q is neither text nor json", c.LogFormat)
	f.Check(slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log-level", "%q is not debug, info, warn or error", c.LogLevel)
	return f.Err("shoal-dev")
}

func (c Config) loopback() bool {
	ip, err := netip.ParseAddr(c.Advertise)
	return err == nil && ip.IsLoopback()
}

func (c Config) level() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // Validate has seen it
	return level
}

// Streams are where a command writes.
type Streams struct {
	// Out gets what was asked for, Err progress, log and errors.
	Out, Err io.Writer
}

const usage = `Usage: shoal-dev [FLAGS]          run a cluster on this machine until Ctrl-C
       shoal-dev reset [FLAGS]    remove the cluster: containers, interfaces, rules, folder and context

All parts of a shoal cluster on one machine, in one process. It takes root and containerd.

`

// Command carries out one command line, without the program's name, and returns the exit code: 0; 1 if it failed; 2 for a
// command line that is wrong.
func Command(ctx context.Context, args []string, to Streams, getenv func(string) string) int {
	cfg := Config{Data: defaultData(getenv)}
	verb := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	flags, version := flagsOf(&cfg, to.Err)
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitMisuse // the flag set has said why
	}
	if *version {
		fmt.Fprintln(to.Out, "shoal-dev", run.FullVersion())
		return exitOK
	}
	var misuse errs.Collector
	misuse.Check(verb == "" || verb == "reset", "", "there is no command %q; there is `shoal-dev reset`", verb)
	misuse.Check(flags.NArg() == 0, "", "it takes no arguments, got %q", flags.Args())
	if abs, err := filepath.Abs(cfg.Data); err == nil {
		cfg.Data = abs
	}
	misuse.Merge("", cfg.Validate())
	who, err := person.Of(getenv, homeOf)
	misuse.Merge("", err)
	if err := misuse.Err("shoal-dev"); err != nil {
		fmt.Fprintln(to.Err, err)
		return exitMisuse
	}
	run.Settle(ctx)
	log := screen.Logger(cfg.LogFormat, cfg.level(), to.Err)
	d := newDev(cfg, who, log, screen.New(cfg.LogFormat, log, to.Out, to.Err))
	if verb == "reset" {
		err = d.reset(ctx, to.Out)
	} else {
		err = d.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(to.Err, "shoal-dev:", strings.TrimPrefix(err.Error(), "shoal-dev: "))
		return exitFailed
	}
	return exitOK
}

func flagsOf(cfg *Config, to io.Writer) (flags *flag.FlagSet, version *bool) {
	flags = flag.NewFlagSet("shoal-dev", flag.ContinueOnError)
	flags.SetOutput(to)
	flags.StringVar(&cfg.Data, "data", cfg.Data, "the cluster's `folder`; the same cluster comes back with it")
	flags.StringVar(&cfg.Advertise, "advertise-addr", "127.0.0.1", "`address` of this machine to listen on; with one that others reach, workers may join")
	flags.StringVar(&cfg.Containerd, "containerd", "/run/containerd/containerd.sock", "containerd's `socket`")
	flags.StringVar(&cfg.Snapshotter, "snapshotter", "overlayfs", "containerd's `snapshotter` for file systems of containers")
	flags.StringVar(&cfg.Context, "context", "shoal-dev", "`name` of the context that is made for the shoal command and is in use until the end")
	flags.BoolVar(&cfg.Keep, "keep", false, "leave the containers running at the end; the next start takes them over")
	flags.StringVar(&cfg.LogFormat, "log-format", screen.Text, "`format` of progress and log: text or json")
	flags.StringVar(&cfg.LogLevel, "log-level", "warn", "least `level` that is logged: debug, info, warn or error; json logs info at least")
	version = flags.Bool("version", false, "print the version and exit")
	flags.Usage = func() {
		fmt.Fprint(to, usage)
		flags.VisitAll(func(f *flag.Flag) {
			value, what := flag.UnquoteUsage(f)
			fmt.Fprintf(to, "  --%-24s %s", strings.TrimSpace(f.Name+" "+value), what)
			if f.DefValue != "false" {
				fmt.Fprintf(to, " (default %s)", f.DefValue)
			}
			fmt.Fprintln(to)
		})
	}
	return flags, version
}

// defaultData is below the home folder of whoever runs it, where there is one.
func defaultData(getenv func(string) string) string {
	if dir := getenv("XDG_DATA_HOME"); dir != "" {
		return path.Join(dir, "shoal-dev")
	}
	if home := getenv("HOME"); home != "" {
		return path.Join(home, ".local", "share", "shoal-dev")
	}
	return "/var/lib/shoal-dev"
}

func homeOf(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}
