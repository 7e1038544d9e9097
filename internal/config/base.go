package config

import (
	"log/slog"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
)

// dataRoot is where every process has its folder.
const dataRoot = "/var/lib/shoal"

// Base is what every process of ours has in its config. A service's Config embeds it with `yaml:",inline"`, and its own
// Validate merges Base's faults.
type Base struct {
	// Data is this process's own folder, an absolute path. Default: /var/lib/shoal/<process>.
	Data string `yaml:"data"`
	// Advertise are this machine's addresses or names as others reach them, without a port, best first. Required. Example:
	// [192.0.2.11].
	Advertise []string `yaml:"advertise"`
	// Listen is where to listen, each as host:port. Default: each advertised address, port <port>. Example: ['192.0.2.11:<port>'].
	Listen []string `yaml:"listen"`
	// MetricsListen is a loopback host:port that serves /metrics and /healthz in clear. Default: none. Example:
	// 127.0.0.1:9100. Reload: live.
	MetricsListen string `yaml:"metrics_listen"`
	// LogLevel is how much is logged: nothing below it. Default: info. Limits: debug, info, warn or error. Reload: live.
	LogLevel string `yaml:"log_level"`
}

// Validate returns all faults at once.
func (b Base) Validate() error {
	var c errs.Collector
	c.Check(b.Data == "" || path.IsAbs(b.Data), "data", "%q is not an absolute path", b.Data)
	c.Check(len(b.Advertise) > 0, "advertise", "name at least one address of this machine")
	for i, a := range b.Advertise {
		field := "advertise[" + strconv.Itoa(i) + "]"
		if ip, err := netip.ParseAddr(a); err == nil {
			c.Check(!ip.IsUnspecified(), field, "%q is no address that others can dial", a)
			continue
		}
		c.Check(validHost(a), field, "%q is not an IP address or a host name (and it has no port)", a)
	}
	for i, l := range b.Listen {
		c.Check(validListen(l), "listen["+strconv.Itoa(i)+"]", "%q is not host:port", l)
	}
	if b.MetricsListen != "" {
		c.Check(validListen(b.MetricsListen) && loopback(b.MetricsListen), "metrics_listen",
			"%q is not a loopback address with a port; it is served in clear", b.MetricsListen)
	}
	var level slog.Level
	c.Check(b.LogLevel == "" || level.UnmarshalText([]byte(b.LogLevel)) == nil && !strings.ContainsAny(b.LogLevel, "+-"),
		"log_level", "%q is not debug, info, warn or error", b.LogLevel)
	return c.Err("config")
}

// Folder is Data, or its default for the process ("ca", "store", ...).
func (b Base) Folder(process string) string {
	if b.Data != "" {
		return b.Data
	}
	return path.Join(dataRoot, process)
}

// Level is the log level; it is valid after Validate.
func (b Base) Level() slog.Level {
	var level slog.Level // zero is info
	_ = level.UnmarshalText([]byte(b.LogLevel))
	return level
}

// Listens is Listen, or its default with the process's port.
func (b Base) Listens(port int) []string {
	if len(b.Listen) > 0 {
		return b.Listen
	}
	return b.Addresses(port)
}

// Addresses are the advertised addresses with the port on which the process listens.
func (b Base) Addresses(port int) []string {
	p := strconv.Itoa(port)
	if len(b.Listen) > 0 {
		if _, own, err := net.SplitHostPort(b.Listen[0]); err == nil {
			p = own
		}
	}
	out := make([]string, len(b.Advertise))
	for i, a := range b.Advertise {
		out[i] = net.JoinHostPort(a, p)
	}
	return out
}

func validHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "-") != label {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

func validListen(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "" && !validHost(host) {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

func loopback(s string) bool {
	host, _, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
