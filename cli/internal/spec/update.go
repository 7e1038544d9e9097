package spec

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
)

// Lookup finds an id by its name, so that what is given by name can be found among a spec's.
type Lookup func(name string) (id string, err error)

// Change changes a service's spec as the flags of update say. The spec is the caller's own copy.
func (f *Flags) Change(s *typesv1.ServiceSpec, networks, services Lookup) error {
	f.faults = errs.Collector{}
	c := s.GetTask().GetContainer()
	if c == nil {
		return errs.New(errs.Precondition, "the service runs no container")
	}
	if f.set.Changed("image") {
		c.Image = f.text("image")
	}
	if f.set.Changed("args") {
		c.Args = f.words("args")
	}
	if force, _ := f.set.GetBool("force"); force {
		s.Task.ForceUpdate++
	}
	c.Env = f.without("env-rm", f.environment("env-add", c.Env), func(e string) string { name, _, _ := strings.Cut(e, "="); return name })
	s.Annotations.Labels = f.removeLabels("label-rm", f.labels("label-add", s.Annotations.Labels))
	c.Labels = f.removeLabels("container-label-rm", f.labels("container-label-add", c.Labels))
	f.changePorts(s)
	f.changeNetworks(s.Task, networks)
	f.changeFiles(c)
	f.changeRules(s.Task, services)
	f.changeDependencies(s)
	f.applyCallers(s)
	f.changeContainerLists(c)
	f.apply(s)
	return f.faults.Err(`update service "` + s.GetAnnotations().GetName() + `"`)
}

// without removes the entries whose names the flag lists; one that is not there is a fault.
func (f *Flags) without(flag string, entries []string, name func(string) string) []string {
	for _, gone := range f.list(flag) {
		before := len(entries)
		entries = slices.DeleteFunc(entries, func(e string) bool { return name(e) == gone })
		f.faults.Check(len(entries) < before, flag, "there is no %q to remove", gone)
	}
	return entries
}

func (f *Flags) removeLabels(flag string, labels map[string]string) map[string]string {
	for _, key := range f.list(flag) {
		_, ok := labels[key]
		f.faults.Check(ok, flag, "there is no label %q to remove", key)
		delete(labels, key)
	}
	return labels
}

func (f *Flags) changePorts(s *typesv1.ServiceSpec) {
	if !f.any("publish-add", "publish-rm") {
		return
	}
	if s.Endpoint == nil {
		s.Endpoint = &typesv1.EndpointSpec{}
	}
	for _, text := range f.list("publish-rm") {
		target, protocol, err := parseTarget(text)
		if err != nil {
			f.faults.Merge("publish-rm", err)
			continue
		}
		before := len(s.Endpoint.Ports)
		s.Endpoint.Ports = slices.DeleteFunc(s.Endpoint.Ports, func(p *typesv1.PortConfig) bool {
			return p.GetTargetPort() == target && sameProtocol(p.GetProtocol(), protocol)
		})
		f.faults.Check(len(s.Endpoint.Ports) < before, "publish-rm", "no port with target %s is published", text)
	}
	for _, text := range f.list("publish-add") {
		ports, err := ParsePorts(text)
		f.faults.Merge("publish-add", err)
		for _, p := range ports {
			s.Endpoint.Ports = slices.DeleteFunc(s.Endpoint.Ports, func(old *typesv1.PortConfig) bool {
				return old.GetTargetPort() == p.GetTargetPort() && sameProtocol(old.GetProtocol(), p.GetProtocol())
			})
			s.Endpoint.Ports = append(s.Endpoint.Ports, p)
		}
	}
}

func sameProtocol(a, b typesv1.Protocol) bool { return state.ProtocolName(a) == state.ProtocolName(b) }

func parseTarget(text string) (uint32, typesv1.Protocol, error) {
	number, kind, _ := strings.Cut(text, "/")
	protocol, err := parseProtocol(kind)
	if err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, 0, errs.New(errs.Invalid, "%q is no target port", text)
	}
	return uint32(n), protocol, nil
}

func (f *Flags) changeNetworks(t *typesv1.TaskSpec, networks Lookup) {
	for _, name := range f.list("network-rm") {
		if name == hostNetwork {
			f.shareNetwork(t, false)
			continue
		}
		before := len(t.Networks)
		id, err := networks(name)
		f.faults.Merge("network-rm", err)
		t.Networks = slices.DeleteFunc(t.Networks, func(a *typesv1.NetworkAttachment) bool {
			return a.GetTarget() == name || a.GetTarget() == id
		})
		f.faults.Check(err != nil || len(t.Networks) < before, "network-rm", "the service is not on network %q", name)
	}
	for _, text := range f.list("network-add") {
		if text == hostNetwork {
			f.shareNetwork(t, true)
			continue
		}
		if a := f.network("network-add", text); a != nil {
			t.Networks = append(t.Networks, a)
		}
	}
}
