package executor

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/services/agent/internal/container"
	"github.com/shoalproject/shoal/services/agent/internal/pull"
)

// messages are what a pull has told.
type messages struct {
	fault func() // hears that a try has failed; nil: nobody does

	mu  sync.Mutex // guards all
	all []string
}

func (m *messages) tell(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, text)
	if m.fault != nil && strings.Contains(text, "tries again in") {
		m.fault()
	}
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.all, "\n")
}

// TestPull: how registries are asked, and what follows when they do not give the image.
func TestPull(t *testing.T) {
	r := newRig(t)
	r.cfg.Pull.Stall = time.Second
	r.cfg.Pull.Helpers = map[string]string{}
	image := r.registry.host + "/repo:1"
	// Each pulls with an agent of its own, so that nothing is remembered, and an image that containerd has not.
	try := func(t *testing.T, ctx context.Context, told *messages, name string, login container.Login) error {
		t.Helper()
		r.forgetImages(t)
		s := r.spec("pull.0")
		s.Container.Image, s.Pull = name, container.Pull{Login: login, Tell: told.tell}
		err := r.again(t).Prepare(ctx, s)
		if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil && !errs.Is(err, errs.NotFound) {
			t.Error(err)
		}
		return err
	}
	pulled := func(t *testing.T, name string, login container.Login) (string, error) {
		t.Helper()
		var told messages
		err := try(t, t.Context(), &told, name, login)
		return told.String(), err
	}
	// once ends with the first fault.
	once := func(t *testing.T, name string, login container.Login) (string, error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		told := messages{fault: cancel}
		err := try(t, ctx, &told, name, login)
		return told.String(), err
	}
	ada := container.Login{Username: "ada", Password: "hunter2"}

	t.Run("a login is shown to those who ask", func(t *testing.T) {
		r.registry.want("ada:hunter2", nil)
		if _, err := pulled(t, image, ada); err != nil {
			t.Fatal(err)
		}
		if heard := r.registry.heard(); len(heard) == 0 {
			t.Error("the registry was shown no login")
		}
	})
	t.Run("a wrong one is told at once, and is in no message", func(t *testing.T) {
		r.registry.want("ada:hunter2", nil)
		_, err := pulled(t, image, container.Login{Username: "ada", Password: "pass-wrong"})
		if !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "does not accept the login") || strings.Contains(err.Error(), "pass-wrong") {
			t.Errorf("%v", err)
		}
	})
	t.Run("none is told with what to do", func(t *testing.T) {
		r.registry.want("ada:hunter2", nil)
		_, err := pulled(t, image, container.Login{})
		if err == nil || !strings.Contains(err.Error(), "wants a login (401); `shoal registry login "+r.registry.host) {
			t.Errorf("%v", err)
		}
	})
	t.Run("one that has not come is waited for, but not by who needs no pull", func(t *testing.T) {
		r.registry.want("", nil)
		if _, err := pulled(t, image, container.Login{Awaited: true}); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%v", err)
		}
		if _, err := pulled(t, image, container.Login{}); err != nil {
			t.Fatal(err)
		}
		s := r.spec("here.0")
		s.Pull.Login.Awaited = true
		if err := r.again(t).Prepare(t.Context(), s); err != nil {
			t.Errorf("with the image here: %v", err)
		}
		if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
			t.Error(err)
		}
	})
	t.Run("a mirror is not shown the login of what it mirrors", func(t *testing.T) {
		r.registry.want("ada:hunter2", nil)
		hostsFile(t, r.cfg.Pull.CertsDir, "r.example", "server = \"http://127.0.0.1:1\"\n[host.\"http://"+r.registry.host+"\"]\n  capabilities = [\"pull\", \"resolve\"]\n", nil)
		_, err := once(t, "r.example/repo:1", ada)
		if err == nil || len(r.registry.heard()) != 0 {
			t.Errorf("the mirror heard %v, %v", r.registry.heard(), err)
		}
		r.registry.want("", nil)
		if _, err := once(t, "r.example/repo:1", ada); err != nil {
			t.Errorf("from a mirror that wants nothing: %v", err)
		}
	})
	t.Run("a private CA, by hosts.toml", func(t *testing.T) {
		r.registry.want("ada:hunter2", nil)
		host, ca := r.registry.sealed(t)
		hostsFile(t, r.cfg.Pull.CertsDir, host, "server = \"https://"+host+"\"\nca = \"ca.pem\"\n", ca)
		if _, err := pulled(t, host+"/repo:1", ada); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a credential helper of the machine", func(t *testing.T) {
		r.registry.want("token-user:fresh", nil)
		r.helper(t, `read host; [ "$host" = "`+r.registry.host+`" ] && printf '{"ServerURL":"x","Username":"token-user","Secret":"fresh"}'`)
		if _, err := pulled(t, image, container.Login{}); err != nil {
			t.Fatal(err)
		}
		r.helper(t, "head -c 100000 /dev/zero")
		said, err := once(t, image, container.Login{})
		if err == nil || !strings.Contains(said, "docker-credential-shoaltest has no login for") {
			t.Errorf("one that says too much: %v; said %q", err, said)
		}
	})
	r.cfg.Pull.Helpers = nil
	t.Run("what passes is tried again, and why is told", func(t *testing.T) {
		var n atomic.Int32
		first := func(f func(w http.ResponseWriter, data []byte)) fault {
			return func(w http.ResponseWriter, req *http.Request, data []byte) bool {
				if !strings.HasSuffix(req.URL.Path, r.registry.layer0) || n.Add(1) > 1 {
					return false
				}
				f(w, data)
				return true
			}
		}
		for name, c := range map[string]struct {
			f    fault
			want string
		}{
			"stall": {first(func(w http.ResponseWriter, data []byte) {
				w.Header().Set("Content-Length", "1000000")
				_, _ = w.Write(data[:1000])
				w.(http.Flusher).Flush()
				<-t.Context().Done()
			}), "has sent nothing for 1s; tries again in 1s"},
			"drip": {first(func(w http.ResponseWriter, data []byte) {
				w.Header().Set("Content-Length", "1000000")
				for tick, i := time.NewTicker(20*time.Millisecond), 0; ; i++ {
					select {
					case <-tick.C:
						_, err := w.Write(data[i : i+1])
						if w.(http.Flusher).Flush(); err != nil {
							return
						}
					case <-t.Context().Done():
						return
					}
				}
			}), "has sent less than 2048 bytes a second for 1s; tries again in 1s"},
			"corrupt": {first(func(w http.ResponseWriter, data []byte) {
				bad := append([]byte{}, data...)
				bad[len(bad)/2] ^= 1
				_, _ = w.Write(bad)
			}), "does not have the digest that it should have; tries again in 1s"},
			"asked too often": {func(w http.ResponseWriter, req *http.Request, _ []byte) bool {
				if n.Add(1) > 5 {
					return false
				}
				w.Header().Set("Retry-After", "2")
				w.WriteHeader(http.StatusTooManyRequests)
				return true
			}, "asked too often (429); tries again in 2s"},
			"broken": {func(w http.ResponseWriter, req *http.Request, _ []byte) bool {
				if n.Add(1) > 3 {
					return false
				}
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}, "answers with status 500; tries again in 1s"},
		} {
			t.Run(name, func(t *testing.T) {
				n.Store(0)
				r.registry.want("", c.f)
				said, err := pulled(t, image, container.Login{})
				if err != nil || !strings.Contains(said, c.want) {
					t.Errorf("%v; said %q", err, said)
				}
			})
		}
	})
	t.Run("a digest is pulled once, with or without its tag", func(t *testing.T) {
		r.registry.want("", nil)
		pinned := r.registry.host + "/repo:1@" + r.registry.digest()
		if _, err := pulled(t, pinned, container.Login{}); err != nil {
			t.Fatal(err)
		}
		r.registry.want("", func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			w.WriteHeader(http.StatusInternalServerError)
			return true
		})
		s := r.spec("pinned.0")
		s.Container.Image = r.registry.host + "/repo@" + r.registry.digest()
		if err := r.again(t).Prepare(t.Context(), s); err != nil {
			t.Error(err)
		}
		if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
			t.Error(err)
		}
	})
}

// TestUnusedImages: the disk is known, an image that a container or a task has is used, also under another name, and one that is
// removed is pulled again when it is needed.
func TestUnusedImages(t *testing.T) {
	r := newRig(t)
	disk, err := r.Disk(t.Context())
	if err != nil || disk.Total <= disk.Free || disk.Free <= 0 {
		t.Fatalf("disk %+v, %v", disk, err)
	}
	s := r.spec("user.0")
	if err := r.Prepare(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	pinned := r.spec("pinned.0")
	pinned.Container.Image = r.registry.host + "/repo@" + r.registry.digest()
	if err := r.Prepare(t.Context(), pinned); err != nil {
		t.Fatal(err)
	}
	used := func(named ...string) (n int) {
		t.Helper()
		all, err := r.Images(t.Context(), named)
		if err != nil || len(all) != 2 {
			t.Fatalf("%+v, %v", all, err)
		}
		for _, i := range all {
			if i.Used {
				n++
			}
			if i.Bytes < 1000 || time.Since(i.Since) > time.Minute {
				t.Errorf("%+v", i)
			}
		}
		return n
	}
	if n := used(); n != 2 {
		t.Errorf("%d are used by containers, want 2", n)
	}
	if _, err := r.Remove(t.Context(), pinned.ID, container.Stop{}); err != nil {
		t.Fatal(err)
	}
	if n := used(); n != 2 {
		t.Errorf("%d are used by a container under one of two names, want 2", n)
	}
	if _, err := r.Remove(t.Context(), s.ID, container.Stop{}); err != nil {
		t.Fatal(err)
	}
	if n := used(); n != 0 {
		t.Errorf("%d are used by nobody", n)
	}
	if n := used(s.Container.GetImage()); n != 2 {
		t.Errorf("%d are used by a task, want 2", n)
	}
	for label, there := range map[string]bool{labelPinned: false, "a": true, pull.LabelPulled: false} {
		r.label(t, pinned.Container.GetImage(), label)
		all, err := r.Images(t.Context(), nil)
		if err != nil || len(all) == 2 != there {
			t.Errorf("with the label %s: %+v, %v", label, all, err)
		}
	}
	asked := r.registry.asked.Load()
	for _, name := range []string{s.Container.GetImage(), pinned.Container.GetImage(), "never.example/was:1"} {
		if err := r.RemoveImage(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	if err := r.Prepare(t.Context(), s); err != nil || r.registry.asked.Load() == asked {
		t.Errorf("%v; asked %d times, %d before", err, r.registry.asked.Load(), asked)
	}
}

// label gives an image one label more, or, if it is that of what we pulled, takes that away: then somebody else has put it there.
func (r *rig) label(t *testing.T, name, label string) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), r.cfg.Namespace)
	i, err := r.client.ImageService().Get(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	i.Labels = map[string]string{pull.LabelPulled: "true", label: "true"}
	if label == pull.LabelPulled {
		i.Labels = nil
	}
	if _, err := r.client.ImageService().Update(ctx, i, "labels"); err != nil {
		t.Fatal(err)
	}
}

// forgetImages lets containerd forget all images and what is in them.
func (r *rig) forgetImages(t *testing.T) {
	t.Helper()
	ctx := namespaces.WithNamespace(t.Context(), r.cfg.Namespace)
	all, err := r.client.ImageService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if err := r.client.ImageService().Delete(ctx, i.Name, cimages.SynchronousDelete()); err != nil {
			t.Fatal(err)
		}
	}
}

// helper puts a credential helper on the machine, and into the config.
func (r *rig) helper(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-shoaltest"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	r.cfg.Pull.Helpers[r.registry.host] = "shoaltest"
}
