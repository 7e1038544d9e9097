package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// side is one of those that are compared.
type side struct {
	name string
	// host is where the client runs; within is a process on it whose network the client shares, if it isn't the host's own.
	host   string
	within int
	url    string
	// processes are those whose CPU time is counted, on this machine.
	processes func() ([]int, error)
}

// connections are open at once while a side is asked.
const connections = "64"

// compare asks all sides in turns, on connections that stay open and on fresh ones. The first side is what the others are
// measured against, and so is the one that second names, if any.
func (s *site) compare(ctx context.Context, step, second string, aims [2]string, sides []side) error {
	for i, fresh := range []bool{false, true} {
		what := [2]string{"requests on open connections", "a connection for each request"}[i]
		t := s.r.table(step+": "+what, aims[i])
		t.second = second
		for round := range s.cfg.rounds {
			order := append(slices.Clone(sides[round%len(sides):]), sides[:round%len(sides)]...)
			for _, side := range order {
				rate, cost, err := s.load(ctx, side, fresh)
				if err != nil {
					return fmt.Errorf("%s: %w", side.name, err)
				}
				t.add(side.name, rate, cost)
			}
		}
	}
	return nil
}

// load asks one side for a while: requests a second, and microseconds of CPU that its processes took for one.
func (s *site) load(ctx context.Context, to side, fresh bool) (rate, cost float64, err error) {
	args := []string{"wrk", "-t1", "-c" + connections, "-d" + s.cfg.each.String(), to.url}
	if fresh {
		args = append(args, "-H", "Connection: close")
	}
	before, err := used(to.processes)
	if err != nil {
		return 0, 0, err
	}
	if to.within != 0 {
		args = append([]string{"nsenter", "-t", strconv.Itoa(to.within), "-n", "--"}, args...)
	}
	out, err := s.run(ctx, to.host, args...)
	if err != nil {
		return 0, 0, err
	}
	after, err := used(to.processes)
	if err != nil {
		return 0, 0, err
	}
	found := regexp.MustCompile(`(\d+) requests in [\s\S]*Requests/sec:\s+([\d.]+)`).FindStringSubmatch(out)
	if found == nil || strings.Contains(out, "Non-2xx") {
		return 0, 0, fmt.Errorf("wrk printed %q", out)
	}
	if errors := regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`).FindString(out); errors != "" {
		s.r.note(to.name + ": " + errors)
	}
	n, _ := strconv.ParseFloat(found[1], 64)
	rate, err = strconv.ParseFloat(found[2], 64)
	if n == 0 {
		return 0, 0, fmt.Errorf("nobody answered: %q", out)
	}
	return rate, (after - before) / n, err
}

// used is the CPU time of processes, in microseconds (proc(5): utime and stime, in ticks of which there are 100 a second).
func used(processes func() ([]int, error)) (float64, error) {
	if processes == nil {
		return 0, nil
	}
	pids, err := processes()
	if err != nil {
		return 0, err
	}
	var ticks float64
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		for _, field := range fields[11:13] {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return 0, err
			}
			ticks += n
		}
	}
	return ticks * 10_000, nil
}
