package main

import (
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// userBase and a process's port make its user's number. No distribution gives these numbers to anybody.
const userBase = 50000

// process is one of our long-running programs.
type process struct {
	name string
	user int      // its user and group; 0: root
	more []string // other programs that it starts
}

// processes: the agent and the meshproxy are root with few capabilities, as they change mounts, namespaces and tables;
// nobody else needs to be.
func processes() []process {
	return []process{
		{name: "ca", user: userBase + 2377},
		{name: "store", user: userBase + 2381},
		{name: "scheduler", user: userBase + 2382},
		{name: "dispatcher", user: userBase + 2383},
		{name: "gateway", user: userBase + 2384},
		{name: "agent", more: []string{"shoal-logger"}},
		{name: "meshproxy"},
	}
}

// recipe is one image.
type recipe struct {
	name     string
	title    string
	programs []string // of which the first is run
	user     int
	roots    bool     // it dials registries, which have certificates of the world's authorities
	health   []string // nil: it does not stay
}

// recipes are all images. The one of the CLI has what `shoal init`, `join` and `leave` call on a machine.
func recipes() []recipe {
	list := []recipe{{
		name: "shoal", title: "shoal: the command, and what it calls to begin, join and leave a cluster",
		programs: []string{"shoal", "shoal-ca", "shoal-agent", "shoal-meshproxy"},
	}}
	for _, p := range processes() {
		list = append(list, recipe{
			name: "shoal-" + p.name, title: "shoal: the process " + p.name,
			programs: append([]string{"shoal-" + p.name}, p.more...), user: p.user, roots: p.name == "agent",
			health: []string{"CMD", program("shoal-" + p.name), "health"},
		})
	}
	return list
}

// program is where a program lies in an image: as on a machine with the packages.
func program(name string) string { return "/usr/bin/" + name }

// config is what a container of the image runs.
func (r recipe) config(o order) v1.Config {
	c := v1.Config{
		Entrypoint: []string{program(r.programs[0])},
		User:       strconv.Itoa(r.user) + ":" + strconv.Itoa(r.user),
		Env:        []string{"PATH=/usr/bin", "HOME=/root"},
		WorkingDir: "/",
		StopSignal: "SIGTERM",
		Labels: map[string]string{
			"org.opencontainers.image.title":    r.title,
			"org.opencontainers.image.version":  o.version,
			"org.opencontainers.image.revision": o.revision,
			"org.opencontainers.image.created":  o.date.Format(time.RFC3339),
			"org.opencontainers.image.licenses": "Apache-2.0",
			"org.opencontainers.image.source":   "https://github.com/shoalproject/shoal",
			"org.opencontainers.image.vendor":   "The shoal authors",
		},
	}
	if r.health != nil {
		// The process itself says within 2 s how it is, or is stuck.
		c.Healthcheck = &v1.HealthConfig{Test: r.health, Interval: 10 * time.Second, Timeout: 5 * time.Second, StartPeriod: time.Minute, Retries: 3}
	}
	return c
}
