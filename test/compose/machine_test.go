// Package compose_test tells the story on machines where deploy/compose is all that was installed: a Docker Engine of
// Debian's, the images of dist/images, and one of the two compose programs that people have.
//
// It needs root, the images of this machine's architecture (make images) and docker compose v2 (make test-compose builds
// both). Each test makes machines of its own and removes them.
package compose_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/test/dockerd"
	"github.com/shoalproject/shoal/test/harness"
)

const (
	// root is the repository's, seen from this package.
	root = "../.."
	// published is the service's port.
	published = 8080
	// runLimit is how long one compose command may take.
	runLimit = 2 * time.Minute
)

// program is a way to run compose.
type program struct {
	name string
	argv []string
}

func programs(t *testing.T) []program {
	t.Helper()
	plugin, err := filepath.Abs(filepath.Join(root, ".cache/docker-compose"))
	if err != nil {
		t.Fatal(err)
	}
	return []program{{"docker compose", []string{plugin}}, {"docker-compose", []string{"docker-compose"}}}
}

// newLab makes bare hosts with a dockerd each, and all of our images.
func newLab(t *testing.T, hosts int) (*harness.Lab, []*machine) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "shoal-compose-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	lab, err := harness.Up(t.Context(), harness.Options{
		Dir: filepath.Join(dir, "lab"), Workers: hosts, NoInit: true, Program: os.Getenv("SHOAL_LAB_PROGRAM"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Down(); err != nil {
			t.Errorf("take the machines away: %v", err)
		}
	})
	var out []*machine
	for i := range hosts {
		name := fmt.Sprintf("w%d", i+1)
		d, err := dockerd.On(t.Context(), lab, name)
		if err != nil {
			t.Fatal(err)
		}
		address, err := d.Address()
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{Daemon: d, t: t, name: name, address: address, settings: filepath.Join(dir, name+".env")}
		m.load()
		out = append(out, m)
	}
	return lab, out
}

// machine is one with a dockerd.
type machine struct {
	*dockerd.Daemon
	t        *testing.T
	name     string
	address  string
	version  string
	settings string // the .env file
	program  program
	file     string // the compose file in use
}

// load takes all images in.
func (m *machine) load() {
	m.t.Helper()
	archives, err := filepath.Glob(filepath.Join(root, "dist/images/*_"+runtime.GOARCH+".tar"))
	if err != nil || len(archives) != 8 {
		m.t.Fatalf("%d archives in dist/images, want 8 (%v); make images", len(archives), err)
	}
	for _, name := range archives {
		f, err := os.Open(name)
		if err != nil {
			m.t.Fatal(err)
		}
		said, err := m.Pipe(m.t.Context(), f, "load", "--quiet")
		_ = f.Close() // it was read
		if err != nil {
			m.t.Fatal(err)
		}
		m.version = said[strings.LastIndex(said, ":")+1:]
	}
}

// set writes the .env file that a person would have written.
func (m *machine) set(values map[string]string) {
	m.t.Helper()
	text := "COMPOSE_PROJECT_NAME=shoal\nSHOAL_IMAGES=\nSHOAL_VERSION=" + m.version + "\nSHOAL_ADVERTISE=" + m.address + "\nSHOAL_JOIN_FOLDER=" + tokens + "\n"
	for k, v := range values {
		text += k + "=" + v + "\n"
	}
	if err := os.WriteFile(m.settings, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// tokens is the folder of the compose files' SHOAL_JOIN_FOLDER, on the machine.
const tokens = "/root/join"

// admit gives the machine a token as a person does: in a file that nobody else may read.
func (m *machine) admit(token string) {
	m.t.Helper()
	m.on(fmt.Sprintf("install -d -m 700 %[1]s && (umask 077; cat >%[1]s/token <<<'%[2]s')", tokens, strings.TrimSpace(token)))
}

// noToken: no token is where others may read it for as long as a container exists, in what Docker knows of it or in its log.
func (m *machine) noToken() {
	m.t.Helper()
	const look = `for c in $(docker ps -aq); do docker inspect "$c"; docker logs "$c" 2>&1; done`
	said := m.on(look)
	if at := strings.Index(said, "SHOAL-1-"); at >= 0 {
		m.t.Errorf("a join token is in inspect or logs of a container: …%s…", said[max(0, at-200):min(len(said), at+20)])
	}
	if !strings.Contains(said, `"--start"`) {
		m.t.Error("the container that joined or began was not looked at")
	}
}

// use says which compose and which of its files the next commands are for.
func (m *machine) use(p program, file string) {
	m.program, m.file = p, filepath.Join(root, "deploy/compose", file)
}

// compose runs the program in use and returns what it printed, outputs in one.
func (m *machine) compose(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), runLimit)
	defer cancel()
	argv := slices.Concat(m.program.argv, []string{"--env-file", m.settings, "-f", m.file}, args)
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append(os.Environ(), m.Env()...)
	c.WaitDelay = 2 * time.Second
	text, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", m.program.name, strings.Join(args, " "), err, text)
	}
	return string(text), err
}

func (m *machine) must(args ...string) string {
	m.t.Helper()
	text, err := m.compose(args...)
	if err != nil {
		m.t.Fatalf("%v\n%s", err, m.state())
	}
	return text
}

// shoal runs the command as the README says.
func (m *machine) shoal(args ...string) string {
	m.t.Helper()
	return m.must(slices.Concat([]string{"run", "--rm", "-T", "shoal"}, args)...)
}

// on runs a script on the machine.
func (m *machine) on(script string) string {
	m.t.Helper()
	text, err := m.Run(m.t.Context(), m.name, script)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// users are the user containers that run, each with when its process started.
func (m *machine) users() string {
	m.t.Helper()
	return m.on(`ctr -n shoal task ls | awk 'NR>1 {print $1, $2}' | sort | while read -r id pid; do echo "$id $(cut -d' ' -f22 "/proc/$pid/stat")"; done`)
}

// answers waits until the service answers on the machine's published port, and returns how long that took.
func (m *machine) answers(within time.Duration) time.Duration {
	m.t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	start := time.Now()
	for {
		err := get(m.t.Context(), client, fmt.Sprintf("http://%s:%d/", m.address, published))
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > within {
			m.t.Fatalf("%s does not answer within %s: %v\n%s", m.name, within, err, m.state())
		}
		pause(m.t.Context(), 50*time.Millisecond)
	}
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "version=1.0.0")) {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// well waits until the processes say so themselves, when their containers are asked by the verb: sooner than Docker asks.
func (m *machine) well(within time.Duration, processes ...string) time.Duration {
	m.t.Helper()
	const ask = `docker exec "$(docker ps -q --filter label=com.docker.compose.service=%[1]s)" /usr/bin/shoal-%[1]s health`
	return m.until(within, "well", func() (not []string) {
		for _, p := range processes {
			if text, err := m.Run(m.t.Context(), m.name, fmt.Sprintf(ask, p)); err != nil {
				not = append(not, p+" ("+text+")")
			}
		}
		return not
	})
}

// healthy waits until Docker finds the containers of these processes healthy: it asks them by their own verb.
func (m *machine) healthy(within time.Duration, processes ...string) time.Duration {
	m.t.Helper()
	return m.until(within, "healthy", func() (not []string) {
		for _, p := range processes {
			text, err := m.Docker(m.t.Context(), "ps", "--filter", "label=com.docker.compose.service="+p, "--format", "{{.Status}}")
			if err != nil || !strings.Contains(text, "(healthy)") {
				not = append(not, p+" ("+text+")")
			}
		}
		return not
	})
}

func (m *machine) until(within time.Duration, what string, ask func() (not []string)) time.Duration {
	m.t.Helper()
	start := time.Now()
	for {
		not := ask()
		if len(not) == 0 {
			return time.Since(start)
		}
		if time.Since(start) > within {
			m.t.Fatalf("not %s within %s: %s\n%s", what, within, strings.Join(not, ", "), m.state())
		}
		pause(m.t.Context(), 200*time.Millisecond)
	}
}

// state is for the reader of a failure.
func (m *machine) state() string {
	text, err := m.Run(context.WithoutCancel(m.t.Context()), m.name,
		`docker ps -a --format '{{.Names}} {{.Status}}'; for c in $(docker ps -aq); do echo "== $(docker inspect -f '{{.Name}}' "$c")"; docker logs --tail 8 "$c" 2>&1; done`)
	return fmt.Sprint(text, err)
}
