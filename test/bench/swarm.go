package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/test/harness"
)

// swarm is a Docker Swarm, asked by the Docker API of one of its managers and by the docker command. It has no published
// ports and no virtual addresses: both need IPVS, which this kind of kernel lacks.
type swarm struct {
	site  *site
	tar   string // the image, for docker load
	asked string // the manager that is asked
	http  *http.Client
}

// apiVersion is that of Docker 20.10.
const apiVersion = "/v1.41"

// newSwarm makes a laboratory with dockerd on each host and joins them. What comes with an error must be closed, too, if
// it is not nil.
func newSwarm(ctx context.Context, cfg config, name string, managers, workers int, log *slog.Logger) (*swarm, error) {
	s, err := open(ctx, harness.Options{Dir: filepath.Join(cfg.Dir, name), Managers: managers, Workers: workers, NoInit: true, Program: cfg.program("shoal-lab")}, log)
	if s == nil {
		return nil, err
	}
	o := &swarm{site: s}
	if err != nil {
		return o, err
	}
	if o.tar, err = o.archive(cfg.Dir, name); err != nil {
		return o, err
	}
	if err := run.Each(ctx, 0, s.hosts, o.boot); err != nil {
		return o, err
	}
	if err := o.form(ctx, managers); err != nil {
		return o, err
	}
	return o, o.ask("m1")
}

// form makes the swarm: managers one after another, then the workers.
func (o *swarm) form(ctx context.Context, managers int) error {
	first := o.site.addresses["m1"]
	if _, err := o.docker(ctx, "m1", "swarm", "init", "--advertise-addr", first, "--listen-addr", first+":2377"); err != nil {
		return err
	}
	for i, h := range o.site.hosts[1:] {
		role := "worker"
		if i+1 < managers {
			role = "manager"
		}
		token, err := o.docker(ctx, "m1", "swarm", "join-token", "-q", role)
		if err != nil {
			return err
		}
		own := o.site.addresses[h]
		if _, err := o.docker(ctx, h, "swarm", "join", "--token", token, "--advertise-addr", own, "--listen-addr", own+":2377", first+":2377"); err != nil {
			return err
		}
	}
	return nil
}

func (o *swarm) who() column       { return swarmPeer }
func (o *swarm) on() *site         { return o.site }
func (o *swarm) namespace() string { return "moby" }

func (o *swarm) close() error {
	if o.tar != "" {
		_ = os.Remove(o.tar) // or the next run does
	}
	return o.site.close()
}

func (o *swarm) socket(host string) string {
	root, _ := o.site.Root(host) // of one that is off there is none
	return root + "/run/docker.sock"
}

func (o *swarm) ask(host string) error {
	o.asked = host
	socket := o.socket(host)
	o.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: createCallers,
	}}
	return nil
}

// docker types a docker command for a host's daemon.
func (o *swarm) docker(ctx context.Context, host string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + o.socket(host)}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s on %s: %w: %s", args[0], host, err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), nil
}

// call asks the Docker API. Into may be nil.
func (o *swarm) call(ctx context.Context, method, path string, body, into any) error {
	var send io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://docker"+apiVersion+path, send)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := o.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		kind := errs.Internal
		if resp.StatusCode == http.StatusNotFound {
			kind = errs.NotFound
		}
		return errs.New(kind, "%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (o *swarm) create(ctx context.Context, s service) error {
	spec := map[string]any{
		"Name": s.name,
		"Mode": map[string]any{"Replicated": map[string]any{"Replicas": s.replicas}},
		// Round-robin names instead of a virtual address: no IPVS.
		"EndpointSpec": map[string]any{"Mode": "dnsrr"},
	}
	template := map[string]any{"ContainerSpec": map[string]any{"Image": o.site.image}}
	if s.delay != nil {
		template["RestartPolicy"] = map[string]any{"Condition": "any", "Delay": s.delay.Nanoseconds()}
	}
	spec["TaskTemplate"] = template
	return o.call(ctx, http.MethodPost, "/services/create", spec, nil)
}

func (o *swarm) remove(ctx context.Context, name string) error {
	return o.call(ctx, http.MethodDelete, "/services/"+name, nil, nil)
}

func (o *swarm) scale(ctx context.Context, name string, replicas int) error {
	_, err := o.docker(ctx, o.asked, "service", "scale", "--detach", fmt.Sprintf("%s=%d", name, replicas))
	return err
}

// counted counts what `docker service ls` shows, which is what the manager knows.
func (o *swarm) counted(ctx context.Context, name string) (int, error) {
	var got []struct {
		ServiceStatus struct{ RunningTasks int }
	}
	err := o.call(ctx, http.MethodGet, "/services?status=true&filters="+filters("name", name), nil, &got)
	if err != nil || len(got) == 0 {
		return 0, err
	}
	return got[0].ServiceStatus.RunningTasks, nil
}

func filters(name, value string) string {
	return url.QueryEscape(fmt.Sprintf(`{%q:{%q:true}}`, name, value))
}

func (o *swarm) running(ctx context.Context, name string) ([]task, error) {
	hosts, err := o.hostnames(ctx)
	if err != nil {
		return nil, err
	}
	var got []struct {
		NodeID, DesiredState string
		Status               struct {
			State           string
			ContainerStatus struct{ ContainerID string }
		}
	}
	if err := o.call(ctx, http.MethodGet, "/tasks?filters="+filters("service", name), nil, &got); err != nil {
		return nil, err
	}
	var found []task
	for _, t := range got {
		if t.DesiredState == "running" && t.Status.State == "running" {
			found = append(found, task{container: t.Status.ContainerStatus.ContainerID, host: hosts[t.NodeID]})
		}
	}
	return found, nil
}

type swarmNode struct {
	ID            string
	Description   struct{ Hostname string }
	Status        struct{ State string }
	ManagerStatus *struct {
		Leader       bool
		Reachability string
	}
}

func (o *swarm) list(ctx context.Context) ([]swarmNode, error) {
	var got []swarmNode
	return got, o.call(ctx, http.MethodGet, "/nodes", nil, &got)
}

func (o *swarm) hostnames(ctx context.Context) (map[string]string, error) {
	got, err := o.list(ctx)
	names := map[string]string{}
	for _, n := range got {
		names[n.ID] = n.Description.Hostname
	}
	return names, err
}

// nodes says of each machine that the leader holds its session: a swarm's dispatcher is in its leader.
func (o *swarm) nodes(ctx context.Context) ([]node, error) {
	got, err := o.list(ctx)
	if err != nil {
		return nil, err
	}
	var found []node
	leader := ""
	for _, n := range got {
		f := node{host: n.Description.Hostname, ready: n.Status.State == "ready", manager: n.ManagerStatus != nil}
		if f.manager {
			f.leader, f.healthy = n.ManagerStatus.Leader, n.ManagerStatus.Reachability == "reachable"
		}
		if f.leader {
			leader = f.host
		}
		found = append(found, f)
	}
	for i := range found {
		found[i].dispatcher = leader
	}
	return found, nil
}

// bootLimit is how long a daemon may take until it answers.
const bootLimit = 60 * time.Second
