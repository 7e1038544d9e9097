package pull

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// TestCredentials: the cluster's login is shown to its own registry alone, a helper's to the host that it is for.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	script := "#!/bin/sh\nread host\nprintf '{\"Username\":\"<token>\",\"Secret\":\"of-%s\"}' \"$host\"\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-shoaltest"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	p := &Puller{cfg: Config{Helpers: map[string]string{"mirror.example": "shoaltest", "r.example": "shoaltest"}}}
	ada, token := container.Login{Username: "ada", Password: "hunter2"}, container.Login{Token: "refresh"}
	for name, c := range map[string]struct {
		registry, asks string
		login          container.Login
		want           string
	}{
		"its own registry":         {"r.example", "r.example", ada, "ada:hunter2"},
		"an identity token":        {"r.example", "r.example", token, ":refresh"},
		"Docker's own host":        {"docker.io", "registry-1.docker.io", ada, "ada:hunter2"},
		"another's port":           {"r.example", "r.example:5000", ada, ":"},
		"a mirror with a helper":   {"r.example", "mirror.example", ada, ":of-mirror.example"},
		"a mirror without":         {"r.example", "cache.example", ada, ":"},
		"a helper, without login":  {"r.example", "r.example", container.Login{}, ":of-r.example"},
		"Docker's name, another's": {"docker.io", "registry-1.docker.io.evil.example", ada, ":"},
	} {
		user, secret, err := p.credentials(t.Context(), c.registry, c.asks, c.login)
		if got := user + ":" + secret; got != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

// TestHelper: a helper is bounded in what it says and in time, and what it says is in no message.
func TestHelper(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"fails":       {"echo top-secret; exit 3", "exit status 3"},
		"no login":    {"echo top-secret", "what is no login"},
		"no secret":   {`printf '{"Username":"top-secret"}'`, "what is no login"},
		"says it all": {"head -c 10000000 /dev/zero", "has no login for r.example"},
		"hangs":       {"sleep 100", "has not answered"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "docker-credential-shoaltest"), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if name == "hangs" {
				ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			}
			defer cancel()
			_, _, err := ask(ctx, "shoaltest", "r.example")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "top-secret") {
				t.Errorf("%v", err)
			}
		})
	}
}
