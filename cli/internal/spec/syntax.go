package spec

import (
	"slices"
	"strconv"
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// maxRange bounds `8000-9000:8000-9000`: a slip of the finger must not publish thousands of ports.
const maxRange = 1000

// ParsePorts reads `[PUBLISHED:]TARGET[/PROTOCOL]`, where both may be ranges of one length, or
// `published=…,target=…,protocol=…,mode=ingress,…` with the options of portOptions. Whether a number is a port is for the store to say.
func ParsePorts(text string) ([]*typesv1.PortConfig, error) {
	if strings.Contains(text, "=") {
		return parseLongPort(text)
	}
	body, kind, hasKind := strings.Cut(text, "/")
	protocol, err := parseProtocol(kind)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q: %w", text, err)
	}
	if hasKind && kind == "" {
		return nil, errs.New(errs.Invalid, "%q: there is no protocol behind the /", text)
	}
	published, target, both := strings.Cut(body, ":")
	if !both {
		published, target = "", body
	}
	if strings.Contains(target, ":") {
		return nil, errs.New(errs.Invalid, "%q: a port is published on every machine, so no address can be given; write [PUBLISHED:]TARGET[/tcp|udp|sctp]", text)
	}
	return expand(text, published, target, protocol)
}

func expand(text, published, target string, protocol typesv1.Protocol) ([]*typesv1.PortConfig, error) {
	from, to, err := parseRange(target)
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q: %w; write [PUBLISHED:]TARGET[/tcp|udp|sctp]", text, err)
	}
	var first, last uint32
	if published != "" {
		if first, last, err = parseRange(published); err != nil {
			return nil, errs.New(errs.Invalid, "%q: %w; write [PUBLISHED:]TARGET[/tcp|udp|sctp]", text, err)
		}
		if last-first != to-from {
			return nil, errs.New(errs.Invalid, "%q: the ranges differ in length", text)
		}
	}
	var out []*typesv1.PortConfig
	for i := range to - from + 1 {
		p := &typesv1.PortConfig{Protocol: protocol, TargetPort: from + i, PublishMode: typesv1.PublishMode_PUBLISH_MODE_INGRESS}
		if published != "" {
			p.PublishedPort = first + i
		}
		out = append(out, p)
	}
	return out, nil
}

func parseRange(text string) (from, to uint32, err error) {
	a, b, ranged := strings.Cut(text, "-")
	first, err := strconv.ParseUint(a, 10, 32)
	if err != nil {
		return 0, 0, errs.New(errs.Invalid, "%q is no port", text)
	}
	if !ranged {
		return uint32(first), uint32(first), nil
	}
	last, err := strconv.ParseUint(b, 10, 32)
	if err != nil || last < first || last-first >= maxRange {
		return 0, 0, errs.New(errs.Invalid, "%q is no range of at most %d ports", text, maxRange)
	}
	return uint32(first), uint32(last), nil
}

func parseLongPort(text string) ([]*typesv1.PortConfig, error) {
	fields, err := parseFields(text, "published", "target", "protocol", "mode", "dataplane", "policy", "affinity", "host-ip", "proxy-protocol")
	if err != nil {
		return nil, err
	}
	protocol, err := parseProtocol(fields["protocol"])
	if err != nil {
		return nil, errs.New(errs.Invalid, "%q: %w", text, err)
	}
	mode := typesv1.PublishMode_PUBLISH_MODE_INGRESS
	switch fields["mode"] {
	case "", "ingress":
	case "host":
		mode = typesv1.PublishMode_PUBLISH_MODE_HOST
	default:
		return nil, errs.New(errs.Invalid, "%q: mode %q is not ingress or host", text, fields["mode"])
	}
	if fields["target"] == "" {
		return nil, errs.New(errs.Invalid, "%q: target is missing", text)
	}
	out, err := expand(text, fields["published"], fields["target"], protocol)
	if err != nil {
		return nil, err
	}
	for _, p := range out {
		p.PublishMode = mode
		if err := portOptions(p, fields); err != nil {
			return nil, errs.New(errs.Invalid, "%q: %w", text, err)
		}
	}
	return out, nil
}

// portOptions are how a port is served.
func portOptions(p *typesv1.PortConfig, fields map[string]string) error {
	dataplane, known := dataplanes()[fields["dataplane"]]
	if !known {
		return errs.New(errs.Invalid, "dataplane %q is not kernel or userspace", fields["dataplane"])
	}
	policy, known := map[string]typesv1.TrafficPolicy{
		"": 0, "cluster": typesv1.TrafficPolicy_TRAFFIC_POLICY_CLUSTER, "local": typesv1.TrafficPolicy_TRAFFIC_POLICY_LOCAL,
		"prefer-local": typesv1.TrafficPolicy_TRAFFIC_POLICY_PREFER_LOCAL,
	}[fields["policy"]]
	if !known {
		return errs.New(errs.Invalid, "policy %q is not cluster, local or prefer-local", fields["policy"])
	}
	affinity, known := map[string]typesv1.SessionAffinity{
		"": 0, "none": typesv1.SessionAffinity_SESSION_AFFINITY_NONE, "client-ip": typesv1.SessionAffinity_SESSION_AFFINITY_CLIENT_IP,
	}[fields["affinity"]]
	if !known {
		return errs.New(errs.Invalid, "affinity %q is not none or client-ip", fields["affinity"])
	}
	proxy, known := map[string]bool{"": false, "v2": true}[fields["proxy-protocol"]]
	if !known {
		return errs.New(errs.Invalid, "proxy-protocol %q is not v2", fields["proxy-protocol"])
	}
	p.ProxyProtocol = proxy
	p.Dataplane, p.TrafficPolicy, p.SessionAffinity, p.HostIp = dataplane, policy, affinity, fields["host-ip"]
	return nil
}

// dataplanes are what may carry connections; empty is the default.
func dataplanes() map[string]typesv1.Dataplane {
	return map[string]typesv1.Dataplane{
		"": 0, "kernel": typesv1.Dataplane_DATAPLANE_KERNEL, "userspace": typesv1.Dataplane_DATAPLANE_USERSPACE,
	}
}

// parseFields reads `key=value,key=value`; src and dst are Docker's other names.
func parseFields(text string, known ...string) (map[string]string, error) {
	out := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || !slices.Contains(known, key) {
			return nil, errs.New(errs.Invalid, "%q: %q is not one of %s, with = and a value", text, part, strings.Join(known, ", "))
		}
		if _, twice := out[key]; twice && key != "alias" && key != "ip" && key != "ip6" {
			return nil, errs.New(errs.Invalid, "%q: %s is given twice", text, key)
		}
		if before := out[key]; before != "" {
			value = before + "," + value
		}
		out[key] = value
	}
	return out, nil
}

func parseProtocol(text string) (typesv1.Protocol, error) {
	switch strings.ToLower(text) {
	case "", "tcp":
		return typesv1.Protocol_PROTOCOL_TCP, nil
	case "udp":
		return typesv1.Protocol_PROTOCOL_UDP, nil
	case "sctp":
		return typesv1.Protocol_PROTOCOL_SCTP, nil
	}
	return 0, errs.New(errs.Invalid, "protocol %q is not tcp, udp or sctp", text)
}

// hostNetwork is Docker's name for the node's own network.
const hostNetwork = "host"

func (f *Flags) shareNetwork(t *typesv1.TaskSpec, share bool) {
	if t.Container.Privileges == nil {
		t.Container.Privileges = &typesv1.Privileges{}
	}
	t.Container.Privileges.HostNetwork = share
}

// network reads NAME, or name=…,alias=…,ip=….
func (f *Flags) network(flag, text string) *typesv1.NetworkAttachment {
	if !strings.Contains(text, "=") {
		return &typesv1.NetworkAttachment{Target: text}
	}
	fields, err := parseFields(text, "name", "alias", "ip", "ip6")
	if err == nil && fields["name"] == "" {
		err = errs.New(errs.Invalid, "%q: name is missing", text)
	}
	if err != nil {
		f.faults.Merge(flag, err)
		return nil
	}
	a := &typesv1.NetworkAttachment{Target: fields["name"]}
	if fields["alias"] != "" {
		a.Aliases = strings.Split(fields["alias"], ",")
	}
	for _, key := range []string{"ip", "ip6"} {
		if fields[key] != "" {
			a.Addresses = append(a.Addresses, strings.Split(fields[key], ",")...)
		}
	}
	return a
}

// envFiles reads the files of --env-file: NAME=value lines, or NAME for this shell's value. What begins with # is left out.
func (f *Flags) envFiles() (env []string) {
	for _, path := range f.list("env-file") {
		data, err := f.read(path)
		f.faults.Merge("env-file", err)
		var lines []string
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t"); line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, line)
			}
		}
		env = f.putEnvironment("env-file", lines, env)
	}
	return env
}

// environment puts the flag's entries over those that are there; an entry of the same name takes the old one's place.
func (f *Flags) environment(flag string, env []string) []string {
	return f.putEnvironment(flag, f.list(flag), env)
}

func (f *Flags) putEnvironment(flag string, entries, env []string) []string {
	env = slices.Clone(env)
	for _, entry := range entries {
		name, _, whole := strings.Cut(entry, "=")
		if name == "" {
			f.faults.Add(flag, "%q has no name", entry)
			continue
		}
		if !whole {
			value := f.getenv(name)
			if value == "" {
				continue // as docker: a variable that is not set here is not set there
			}
			entry = name + "=" + value
		}
		at := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if at >= 0 {
			env[at] = entry
		} else {
			env = append(env, entry)
		}
	}
	return env
}

// labels puts the flag's `key=value` over those that are there.
func (f *Flags) labels(flag string, labels map[string]string) map[string]string {
	out, err := Labels(f.list(flag), labels)
	f.faults.Merge(flag, err)
	return out
}

// Labels puts `key=value` or `key` entries over a map, which may be nil.
func Labels(entries []string, labels map[string]string) (map[string]string, error) {
	for _, entry := range entries {
		key, value, _ := strings.Cut(entry, "=")
		if key == "" {
			return labels, errs.New(errs.Invalid, "%q has no key", entry)
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

// Words splits a command as a shell would: blanks separate, quotes and backslashes keep together. Nothing is expanded.
func Words(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inside, escaped := false, false
	for _, r := range text {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inside = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inside = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inside {
				words = append(words, word.String())
				word.Reset()
				inside = false
			}
		default:
			word.WriteRune(r)
			inside = true
		}
	}
	if quote != 0 || escaped {
		return nil, errs.New(errs.Invalid, "%q: a quote or backslash has no end", text)
	}
	if inside {
		words = append(words, word.String())
	}
	return words, nil
}
