package spec

import (
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// ClusterChange is what a command line changes of the cluster's settings.
type ClusterChange struct {
	set *pflag.FlagSet
}

// Policy reports whether it is about what containers may do.
func (c *ClusterChange) Policy() bool {
	return c.set.Changed("allow-privileged") || c.set.Changed("allow-host-namespaces") || c.set.Changed("userns")
}

// Flags defines the flags of `cluster update`. Those with a value are texts, so that all faults can be told at once.
func (c *ClusterChange) Flags(set *pflag.FlagSet) {
	c.set = set
	set.Bool("allow-privileged", false, "services may be privileged")
	set.Bool("allow-host-namespaces", false, "services may share their node's namespaces, and containers of other tools be put on networks")
	set.String("userns", "", "user ids of new services that say nothing of it: private or host (default host)")
	set.String("preemption", "", "whether tasks of a higher priority may displace others: on or off (default off)")
	set.String("strategy", "", "which of the nodes that fit is best: spread or binpack (default spread)")
	set.String("mass-loss-percent", "", "share of the nodes that may be lost at once before replacement slows down; 100: never (default 34)")
	set.String("mass-loss-window", "", "losses within this time count as at once (default 1m)")
	set.String("flap-window", "", "how long the tasks of a lost node are kept to be taken back (default 1m)")
	set.String("dataplane", "", "what carries connections to published ports: kernel or userspace (default kernel)")
	set.String("encrypt-mesh", "", "whether traffic of published ports is encrypted between machines: on or off (default off)")
	set.String("tunnel-key-life", "", "how long a machine uses a key for encrypted networks (default 24h)")
	set.Bool("rotate-tunnel-keys", false, "have every machine make a new key for encrypted networks")
	set.String("task-history-limit", "", "ended tasks to keep, a slot (default 5)")
}

// Apply changes what the flags say, and leaves the rest.
func (c *ClusterChange) Apply(s *typesv1.ClusterSpec) error {
	var faults errs.Collector
	settings := s.GetScheduling()
	if settings == nil {
		settings = &typesv1.SchedulingConfig{}
	}
	if slices.ContainsFunc([]string{"preemption", "strategy", "mass-loss-percent", "mass-loss-window", "flap-window"}, c.set.Changed) {
		s.Scheduling = settings
	}
	c.containers(s)
	text := func(name string, to func(text string) bool, otherwise string) {
		if !c.set.Changed(name) {
			return
		}
		value, _ := c.set.GetString(name)
		faults.Check(to(value), name, "%q is %s", value, otherwise)
	}
	duration := func(name string, to **durationpb.Duration) {
		text(name, func(v string) bool {
			d, err := time.ParseDuration(v)
			*to = durationpb.New(d)
			return err == nil
		}, "no duration, such as 90s")
	}
	text("userns", func(v string) bool {
		s.Containers.UserNamespace = userNamespaces()[v]
		return s.Containers.UserNamespace != 0
	}, "not private or host")
	text("preemption", func(v string) bool {
		settings.Preemption = v == "on"
		return v == "on" || v == "off"
	}, "not on or off")
	c.encryption(s, text, duration)
	text("dataplane", func(v string) bool { s.Dataplane = dataplanes()[v]; return s.Dataplane != 0 }, "not kernel or userspace")
	text("strategy", func(v string) bool {
		settings.Strategy = map[string]typesv1.PlacementStrategy{
			"spread": typesv1.PlacementStrategy_PLACEMENT_STRATEGY_SPREAD, "binpack": typesv1.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK,
		}[v]
		return settings.Strategy != 0
	}, "not spread or binpack")
	text("mass-loss-percent", func(v string) bool {
		n, err := strconv.ParseUint(v, 10, 32)
		share := uint32(n)
		settings.MassLossPercent = &share
		return err == nil
	}, "no whole number")
	duration("mass-loss-window", &settings.MassLossWindow)
	duration("flap-window", &settings.FlapWindow)
	text("task-history-limit", func(v string) bool {
		n, err := strconv.ParseInt(v, 10, 32)
		s.TaskHistoryLimit = int32(n)
		return err == nil
	}, "no whole number")
	return faults.Err("update the cluster")
}

// containers is what they may ask for.
func (c *ClusterChange) containers(s *typesv1.ClusterSpec) {
	if c.Policy() && s.Containers == nil {
		s.Containers = &typesv1.ContainerPolicy{}
	}
	if c.set.Changed("allow-privileged") {
		s.Containers.AllowPrivileged, _ = c.set.GetBool("allow-privileged")
	}
	if c.set.Changed("allow-host-namespaces") {
		s.Containers.AllowHostNamespaces, _ = c.set.GetBool("allow-host-namespaces")
	}
}

// encryption is of traffic between machines.
func (c *ClusterChange) encryption(s *typesv1.ClusterSpec, text func(name string, to func(string) bool, otherwise string), duration func(string, **durationpb.Duration)) {
	if !slices.ContainsFunc([]string{"encrypt-mesh", "tunnel-key-life", "rotate-tunnel-keys"}, c.set.Changed) {
		return
	}
	if s.Encryption == nil {
		s.Encryption = &typesv1.Encryption{}
	}
	if now, _ := c.set.GetBool("rotate-tunnel-keys"); now {
		s.Encryption.KeyRotation++
	}
	text("encrypt-mesh", func(v string) bool {
		s.Encryption.Mesh = v == "on"
		return v == "on" || v == "off"
	}, "not on or off")
	duration("tunnel-key-life", &s.Encryption.KeyLife)
}
