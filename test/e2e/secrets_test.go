package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secret is data that must be nowhere but in memory and in the person's own file.
const secret = "correct-horse-battery-staple"

// A secret is in its containers as a file in memory, with the owner and mode asked for, and nowhere else on any machine; new
// data rolls the services that use it and a rollback has the old data again; killed agents and removed services leave what
// they should.
func TestSecrets(t *testing.T) {
	c := bring(t, 1, 1)
	c.tell([]step{
		{"a secret and a config are files of the container", secretIsAFile},
		{"the data is on no disk", secretIsOnNoDisk},
		{"new data rolls the service, and a rollback has the old", secretRolls},
		{"a killed agent's container keeps them", secretOutlivesTheAgent},
		{"nothing is left", secretLeavesNothing},
	})
}

func (c *cluster) write(host, path, text string) {
	c.t.Helper()
	c.on(host, "sh", "-c", "umask 077; printf %s '"+text+"' > "+path)
}

// fileOf runs a program of the machine on the files of the container of a service's first task.
func (c *cluster) fileOf(service string, args ...string) string {
	c.t.Helper()
	row := c.tasks(service, true)[0]
	pid := strings.TrimSpace(c.shoal("task", "inspect", "-f", "{{.Status.ContainerStatus.PID}}", row.ID))
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "ROOT", "/proc/"+pid+"/root")
	}
	return c.on(row.Node, args...)
}

func secretIsAFile(t *testing.T, c *cluster) {
	c.write("m1", "/root/key", secret)
	c.write("m1", "/root/conf", "colour=blue")
	c.shoal("secret", "create", "--label", "tier=back", "db.key", "/root/key")
	c.shoal("config", "create", "app.conf", "/root/conf")
	c.shoal("service", "create", "--name", "web", "--secret", "source=db.key,target=key,uid=1000,gid=1001,mode=0400",
		"--config", "source=app.conf,target=/etc/app/app.conf", c.image("1.0.0"))
	if got := c.fileOf("web", "cat", "ROOT/run/secrets/key"); got != secret {
		t.Errorf("the container has %q", got)
	}
	if got := strings.TrimSpace(c.fileOf("web", "stat", "-c", "%u:%g %a", "ROOT/run/secrets/key")); got != "1000:1001 400" {
		t.Errorf("owner and mode are %s", got)
	}
	if got := c.fileOf("web", "cat", "ROOT/etc/app/app.conf"); got != "colour=blue" {
		t.Errorf("the config is %q", got)
	}
	if got := strings.TrimSpace(c.fileOf("web", "stat", "-f", "-c", "%T", "ROOT/run/secrets/key")); got != "tmpfs" {
		t.Errorf("the secret is on %s", got)
	}
	c.refused([]string{"in use by service web"}, "secret", "rm", "db.key")
	for _, args := range [][]string{{"secret", "inspect", "db.key"}, {"service", "inspect", "web"}, {"task", "inspect", c.tasks("web", true)[0].ID}} {
		if got := c.shoal(args...); strings.Contains(got, secret) {
			t.Errorf("%v shows the data", args)
		}
	}
}

func secretIsOnNoDisk(t *testing.T, c *cluster) {
	c.on("m1", "rm", "/root/key")
	err := filepath.WalkDir(c.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what goes meanwhile has no data
		}
		if data, err := os.ReadFile(path); err == nil && bytes.Contains(data, []byte(secret)) {
			t.Errorf("%s has the data in clear", strings.TrimPrefix(path, c.dir))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func secretRolls(t *testing.T, c *cluster) {
	before := c.tasks("web", true)[0].ID
	c.write("m1", "/root/key", "second")
	c.shoal("secret", "update", "db.key", "/root/key")
	if got := c.fileOf("web", "cat", "ROOT/run/secrets/key"); got != "second" || c.tasks("web", true)[0].ID == before {
		t.Errorf("after the update the container has %q", got)
	}
	c.shoal("service", "rollback", "web")
	if got := c.fileOf("web", "cat", "ROOT/run/secrets/key"); got != secret {
		t.Errorf("after the rollback the container has %q", got)
	}
}

func secretOutlivesTheAgent(t *testing.T, c *cluster) {
	row := c.tasks("web", true)[0]
	if err := c.lab.Kill(t.Context(), row.Node, "shoal-agent"); err != nil {
		t.Fatal(err)
	}
	c.shoal("service", "scale", "web=2") // another task with the same secret, so that the agent works again
	for _, r := range c.tasks("web", true) {
		pid := strings.TrimSpace(c.shoal("task", "inspect", "-f", "{{.Status.ContainerStatus.PID}}", r.ID))
		if got := c.on(r.Node, "cat", "/proc/"+pid+"/root/run/secrets/key"); got != secret {
			t.Errorf("%s has %q", r.Name, got)
		}
	}
	if now := c.tasks("web", true); now[0].ID != row.ID && now[1].ID != row.ID {
		t.Errorf("the first task %s was replaced: %+v", row.ID, now)
	}
}

func secretLeavesNothing(t *testing.T, c *cluster) {
	c.shoal("service", "rm", "web")
	c.shoal("secret", "rm", "db.key")
	c.shoal("config", "rm", "app.conf")
	for _, host := range []string{"m1", "w1"} {
		until(t, "no files are left on "+host, 10*time.Second, func() string {
			out, _, _ := c.try(host, "find", "/run/shoal/secrets", "-type", "f")
			return out
		})
	}
}
