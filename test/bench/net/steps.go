package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/test/bench/poll"
)

// mesh asks for a task on another machine than the one that is asked, from a third one.
func (s *site) mesh(ctx context.Context) error {
	entry, err := s.Address("m1")
	if err != nil {
		return err
	}
	own, err := s.Address("w1")
	if err != nil {
		return err
	}
	task := s.tasks["target"].on(true)
	back, err := s.open(ctx, task, own)
	defer back()
	if err != nil {
		return err
	}
	at := func(port int) string { return fmt.Sprintf("http://%s:%d/", entry, port) }
	return s.compare(ctx, "the mesh, task on another machine", byWire, [2]string{"kernel 0.9 of direct", "kernel 0.8 of direct"}, []side{
		{name: "direct", host: "w1", url: fmt.Sprintf("http://%s:%d/", task, microPort)},
		{name: byWire, host: "w2", url: fmt.Sprintf("http://%s:%d/", task, microPort)},
		{name: "host port", host: "w2", url: fmt.Sprintf("http://%s:%d/", own, hostPort)},
		{name: "kernel", host: "w2", url: at(kernelPort)},
		{name: "userspace", host: "w2", url: at(userSpacePort)},
	})
}

// byWire asks the task by its own address from another machine: one wire, and nothing translated.
const byWire = "direct, by the wire"

// open leads w2 to a task on w1, which w1 would refuse, and gives what takes that back.
func (s *site) open(ctx context.Context, task, machine string) (back func(), err error) {
	back = func() {
		for host, args := range map[string][]string{"w1": {"nft", "flush chain inet shoal SHOAL-USER"}, "w2": {"ip", "route", "del", task}} {
			if _, err := s.run(context.WithoutCancel(ctx), host, args...); err != nil {
				s.r.note(err.Error())
			}
		}
	}
	if _, err = s.run(ctx, "w1", "nft", "add rule inet shoal SHOAL-USER ip daddr "+task+" accept"); err == nil {
		_, err = s.run(ctx, "w2", "ip", "route", "add", task, "via", machine)
	}
	return back, err
}

// vip asks from container to container.
func (s *site) vip(ctx context.Context) error {
	out, err := s.shoal(ctx, "service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "virtual")
	if err != nil {
		return err
	}
	var vips []struct {
		Addresses []string
		Addr      string
	}
	if err := json.Unmarshal([]byte(out), &vips); err != nil || len(vips) == 0 {
		return fmt.Errorf("service inspect printed %q: %w", out, err)
	}
	virtual, _, _ := strings.Cut(append(vips[0].Addresses, vips[0].Addr)[0], "/")
	at := func(address string) string { return fmt.Sprintf("http://%s:%d/", address, microPort) }
	pid := s.tasks["caller"].Status.ContainerStatus.PID
	return s.compare(ctx, "container to container", "", [2]string{"0.95 of direct", "0.95 of direct"}, []side{
		{name: "direct", host: "w1", within: pid, url: at(s.tasks["target"].on(false))},
		{name: "virtual address", host: "w1", within: pid, url: at(virtual)},
	})
}

// proxies asks the meshproxy of the task's machine, and HAProxy and nginx on the same machine before a task each.
func (s *site) proxies(ctx context.Context) error {
	own, err := s.Address("w1")
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "shoal-bench-net-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }() // two small files of this run
	haproxy := filepath.Join(folder, "haproxy.cfg")
	nginx := filepath.Join(folder, "nginx.conf")
	err = errors.Join(
		os.WriteFile(haproxy, fmt.Appendf(nil, haproxyConfig, own, s.socket("haproxy")), 0o600),
		os.WriteFile(nginx, fmt.Appendf(nil, nginxConfig, folder, folder, own, s.socket("nginx")), 0o600),
	)
	if err != nil {
		return err
	}
	sides := []side{{name: "direct", host: "w1", url: "http://" + s.socket("target") + "/"}}
	sides = append(sides, side{
		name: "userspace", host: "w1", url: fmt.Sprintf("http://%s:%d/", own, userSpacePort),
		processes: func() ([]int, error) {
			pid, err := s.PID(ctx, "w1", "meshproxy")
			return []int{pid}, err
		},
	})
	for _, peer := range []struct {
		name, port string
		args       []string
	}{
		{"haproxy", "18002", []string{"haproxy", "-db", "-f", haproxy}},
		{"nginx", "18003", []string{"nginx", "-c", nginx, "-p", folder}},
	} {
		cmd, err := s.start(ctx, "w1", peer.args...)
		if err != nil {
			return err
		}
		defer end(cmd)
		url := "http://" + net.JoinHostPort(own, peer.port) + "/"
		if err := s.await(ctx, peer.name, "w1", url); err != nil {
			return err
		}
		sides = append(sides, side{name: peer.name, host: "w1", url: url, processes: func() ([]int, error) { return family(cmd.Process.Pid) }})
	}
	return s.compare(ctx, "the meshproxy beside proxies", "", [2]string{"0.9 of the better proxy", "0.9 of the better proxy"}, sides)
}

// start starts a proxy on a host, beside what the host runs. It is ended by end, or with ctx.
func (s *site) start(ctx context.Context, host string, args ...string) (*exec.Cmd, error) {
	cmd, err := s.beside(ctx, host, args...)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	return cmd, cmd.Start()
}

// await waits until a URL answers whoever asks from a host.
func (s *site) await(ctx context.Context, what, host, url string) error {
	_, err := poll.Until(ctx, what+" answers", answerLimit, func(ctx context.Context) string {
		if _, err := s.run(ctx, host, "curl", "-fsS", "-o", "/dev/null", url); err != nil {
			return err.Error()
		}
		return ""
	})
	return err
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	_ = cmd.Wait()
}

// family is a process and its children.
func family(pid int) ([]int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	out := []int{pid}
	for _, field := range strings.Fields(string(data)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		out = append(out, child)
	}
	return out, err
}

const haproxyConfig = `global
  nbthread 2
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen l
  bind %s:18002
  server task %s
`

const nginxConfig = `load_module /usr/lib/nginx/modules/ngx_stream_module.so;
worker_processes 2;
daemon off;
user root;
pid %s/nginx.pid;
error_log %s/nginx.err;
events { worker_connections 4096; }
stream { server { listen %s:18003; proxy_pass %s; } }
`
