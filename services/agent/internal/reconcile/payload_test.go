package reconcile_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/run"
	dispatcherv1 "github.com/shoalproject/shoal/proto/shoal/dispatcher/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/agent/agenttest"
)

func withSecret(id string, desired typesv1.TaskState, version uint64) *dispatcherv1.AssignedTask {
	a := assigned(id, desired, 0)
	a.Spec.Container.Secrets = []*typesv1.FileReference{{Id: "s", Name: "password", Version: version, Target: "password", Mode: proto.Uint32(0o400)}}
	return a
}

// TestTaskWaitsForItsSecret: a task does not start without the data that it needs, says so, starts when it has come, and leaves
// nothing of it: not in the journal, and not on the machine when it is gone.
func TestTaskWaitsForItsSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := agenttest.NewHost("w1", run.NewRand(1))
		a := start(t, host)
		a.assign(whole(5, withSecret("t1", running, 3)))
		a.settle(2 * time.Second)
		a.expect("t1", typesv1.TaskState_TASK_STATE_PREPARING, false, `waits for the data of secret "password"`)

		a.Payload(a.ctx, &dispatcherv1.Payload{Id: "s.2", Data: []byte("the version before")})
		a.Payload(a.ctx, &dispatcherv1.Payload{Id: "s.3", Data: []byte("hunter2")})
		a.settle(2 * time.Second)
		a.expect("t1", running, true, "")
		if got := host.Files("t1.0"); len(got) != 1 || got["/run/secrets/password"] != "hunter2" {
			t.Errorf("the container has %q", got)
		}
		for id, r := range host.Journal().Tasks {
			if raw, err := proto.Marshal(r.Task); err != nil || bytes.Contains(raw, []byte("hunter2")) {
				t.Errorf("the journal has the data of task %s (%v)", id, err)
			}
		}

		// Another task of this machine uses the same data, which has not been sent again.
		a.assign(change(6, withSecret("t2", running, 3)))
		a.settle(2 * time.Second)
		a.expect("t2", running, true, "")

		// When no task uses it, it goes; one that comes later waits until it is sent again.
		a.assign(whole(7))
		a.settle(20 * time.Second)
		if len(host.Containers()) != 0 || len(host.Files("t1.0"))+len(host.Files("t2.0")) != 0 {
			t.Errorf("left: %v, %q", host.Containers(), host.Files("t1.0"))
		}
		a.assign(change(8, withSecret("t3", running, 3)))
		a.settle(2 * time.Second)
		a.expect("t3", typesv1.TaskState_TASK_STATE_PREPARING, false, "waits for the data")
	})
}

func withLogin(id string, login string) *dispatcherv1.AssignedTask {
	a := assigned(id, running, 0)
	a.Spec.Container.Image, a.Login = "r.example/private", login
	return a
}

// TestLogins: an image that needs a login waits for it, says how far the pull is, and is pulled with the one that is in force
// when it begins; another login afterwards touches nothing that runs, and is in no journal.
func TestLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := agenttest.NewHost("w1", run.NewRand(1))
		host.Behave("r.example/private", agenttest.Behaviour{Login: "ada:hunter2", Progress: "pulling 30 %, 12 of 40 MB", PrepareDelay: 5 * time.Second})
		a := start(t, host)
		send := func(id, password string) {
			raw, err := proto.Marshal(&typesv1.RegistryLogin{Username: "ada", Password: password})
			if err != nil {
				t.Fatal(err)
			}
			a.Payload(a.ctx, &dispatcherv1.Payload{Id: id, Data: raw})
		}
		a.assign(whole(5, withLogin("t1", "r.1")))
		a.settle(2 * time.Second)
		a.expect("t1", typesv1.TaskState_TASK_STATE_PREPARING, false, "waits for the login")
		send("r.1", "hunter2")
		a.settle(3 * time.Second)
		a.expect("t1", typesv1.TaskState_TASK_STATE_PREPARING, false, "pulling 30 %, 12 of 40 MB")
		a.settle(5 * time.Second)
		a.expect("t1", running, true, "")

		// The login changes: the same container runs on, and one that comes later is refused the image with the wrong one.
		a.assign(change(6, withLogin("t1", "r.2")))
		send("r.2", "hunter3")
		a.assign(change(7, withLogin("t2", "r.2")))
		a.settle(3 * time.Second)
		a.expect("t1", running, true, "")
		a.expect("t2", rejected, false, "does not accept the login")
		if host.Starts() != 1 {
			t.Errorf("%d starts, want 1", host.Starts())
		}
		for id, r := range host.Journal().Tasks {
			if raw, err := proto.Marshal(r.Task); err != nil || bytes.Contains(raw, []byte("hunter")) {
				t.Errorf("the journal has the login of task %s (%v)", id, err)
			}
		}
	})
}

// TestSecretOutlivesTheAgent: a container that runs on keeps its files when the agent is killed and comes back.
func TestSecretOutlivesTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := agenttest.NewHost("w1", run.NewRand(1))
		a := start(t, host)
		a.assign(whole(5, withSecret("t1", running, 1)))
		a.Payload(a.ctx, &dispatcherv1.Payload{Id: "s.1", Data: []byte("x")})
		a.settle(2 * time.Second)
		host.Crash()
		a.stop()
		b := start(t, host)
		b.assign(whole(6, withSecret("t1", running, 1)))
		b.settle(15 * time.Minute) // a sweep is among it
		b.expect("t1", running, true, "")
		if got := host.Files("t1.0"); got["/run/secrets/password"] != "x" || host.Starts() != 1 {
			t.Errorf("the container has %q after %d starts", got, host.Starts())
		}
	})
}

// TestFilesAreFilledIn: a file with placeholders is filled in for its task, with what the container has beside it; one without
// stays as it is; and one that asks for what is not there is refused, without a word of the data.
func TestFilesAreFilledIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := agenttest.NewHost("w1", run.NewRand(1))
		a := start(t, host)
		filled := withSecret("t1", running, 1)
		filled.Spec.Container.Env = []string{"AT={{.Node.Hostname}}"}
		filled.Spec.Container.Configs = []*typesv1.FileReference{
			{Id: "c", Name: "conf", Version: 1, Target: "/etc/conf", Template: true}, {Id: "p", Name: "plain", Version: 1, Target: "plain"},
		}
		lost := withSecret("t2", running, 1)
		lost.Spec.Container.Configs = []*typesv1.FileReference{{Id: "l", Name: "lost", Version: 1, Target: "lost", Template: true}}
		a.assign(whole(5, filled, lost))
		for id, data := range map[string]string{
			"s.1": "hunter2", "c.1": `{{.Task.ID}} at {{env "AT"}} has {{secret "password"}}`, "p.1": "{{.Task.ID}}", "l.1": `{{config "none"}} hunter3`,
		} {
			a.Payload(a.ctx, &dispatcherv1.Payload{Id: id, Data: []byte(data)})
		}
		a.settle(5 * time.Second)
		a.expect("t1", running, true, "")
		got := host.Files("t1.0")
		if got["/etc/conf"] != "t1 at m1 has hunter2" || got["/plain"] != "{{.Task.ID}}" {
			t.Errorf("the container has %q", got)
		}
		a.expect("t2", typesv1.TaskState_TASK_STATE_REJECTED, false, `config "lost": it asks for config "none", which the container does not have`)
	})
}
