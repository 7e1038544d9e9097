package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/bench/poll"
)

const (
	firstPort = 40000 // of the services that are only in the tables
	endpoints = 3     // of each
	settle    = 3 * time.Second
)

// large starts the meshproxy of a machine that is cut off with the tables of many services, as after a power cut without a control
// plane: until the last of them is in the kernel, and what it takes then. The machine is of no use for another step.
func (s *site) large(ctx context.Context) error {
	const host = "w2"
	found, err := s.run(ctx, host, "find", "/var/lib", "-name", "tables.pb")
	if err != nil {
		return err
	}
	status, err := s.Status(ctx)
	if err != nil {
		return err
	}
	var file string
	for _, h := range status.Hosts {
		if h.Name == host {
			file = filepath.Join(h.Dir, found)
		}
	}
	if err := s.Unplug(ctx, host); err != nil {
		return err
	}
	start, memory := s.r.table(fmt.Sprintf("a meshproxy starts with %d services of %d endpoints, ms", s.cfg.services, endpoints), "3,000 ms"),
		s.r.table("its resident memory then, MB", "100 MB")
	for range 3 {
		if err := s.Stop(ctx, host, "meshproxy"); err != nil {
			return err
		}
		if _, err := s.run(ctx, host, "nft", "delete table inet shoal"); err != nil {
			return err
		}
		if err := s.fill(file); err != nil {
			return err
		}
		if err := s.Start(ctx, host, "meshproxy"); err != nil {
			return err
		}
		last := fmt.Sprintf("get element inet shoal ports4 { tcp . %d }", firstPort+s.cfg.services-1)
		took, err := poll.Until(ctx, "the last service is in the kernel", answerLimit, func(ctx context.Context) string {
			if _, err := s.run(ctx, host, "nft", last); err != nil {
				return err.Error()
			}
			return ""
		})
		if err != nil {
			return err
		}
		start.add("meshproxy", float64(took.Milliseconds()), 0)
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return ctx.Err()
		}
		megabytes, err := s.resident(ctx, host)
		if err != nil {
			return err
		}
		memory.add("meshproxy", megabytes, 0)
	}
	return nil
}

// fill puts the services into the file of last known tables, beside what is there.
func (s *site) fill(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	tables := &dispatcherv1.EndpointsResponse{}
	if err := proto.Unmarshal(data, tables); err != nil {
		return err
	}
	tables.Services = nil
	for i := range s.cfg.services {
		svc := &dispatcherv1.MeshService{
			ServiceId: fmt.Sprintf("service-%d", i), Name: fmt.Sprintf("service-%d", i),
			Ports: []*typesv1.PortConfig{{PublishedPort: uint32(firstPort + i), TargetPort: microPort}},
		}
		for j := range endpoints {
			n := i*endpoints + j
			svc.Endpoints = append(svc.Endpoints, &dispatcherv1.MeshEndpoint{
				TaskId: fmt.Sprintf("task-%d", n), NodeId: tables.GetMachines()[j%len(tables.GetMachines())].GetNodeId(), Slot: uint64(j + 1),
				Addresses: []string{fmt.Sprintf("10.200.%d.%d", n/250, 1+n%250)},
			})
		}
		tables.Services = append(tables.Services, svc)
	}
	if data, err = proto.Marshal(tables); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// resident is the memory of a host's meshproxy, in MB (proc(5), VmRSS).
func (s *site) resident(ctx context.Context, host string) (float64, error) {
	pid, err := s.PID(ctx, host, "meshproxy")
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in %q", data)
}
