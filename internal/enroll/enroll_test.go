package enroll_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
)

const (
	agent = authzv1.Role_ROLE_AGENT
	mesh  = authzv1.Role_ROLE_MESHPROXY
	store = authzv1.Role_ROLE_STORE
	caDNS = "ca:2377"
)

// fakeCA is a CA with the checks of a real one that a joiner meets.
type fakeCA struct {
	cav1.UnimplementedCertificateServiceServer
	t     *testing.T
	env   run.Env
	ca    *identitytest.Authority
	token enroll.Token

	mu        sync.Mutex // guards all below
	certified map[string]*ecdsa.PublicKey
	asked     int
	answer    func(n int, resp *cav1.JoinResponse) error // may spoil the n-th answer
	bundle    []byte                                     // what GetRoot shows
}

func (c *fakeCA) GetRoot(context.Context, *cav1.GetRootRequest) (*cav1.GetRootResponse, error) {
	return &cav1.GetRootResponse{Bundle: c.bundle, Now: timestamppb.New(c.env.Now())}, nil
}

func (c *fakeCA) Join(_ context.Context, req *cav1.JoinRequest) (*cav1.JoinResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if req.GetToken() != c.token.String() {
		return nil, errs.New(errs.Denied, "the token is not in force")
	}
	resp := &cav1.JoinResponse{ClusterId: c.ca.Cluster, Bundle: c.ca.Bundle(), Directory: &cav1.Directory{Entries: []*cav1.DirectoryEntry{
		{Role: authzv1.Role_ROLE_DISPATCHER, MachineId: "m0", Addresses: []string{"d:2383"}},
	}}}
	for _, r := range req.GetRequests() {
		id := c.ca.ID(r.GetRole(), req.GetMachineId())
		key, err := c.check(id, r)
		if err != nil {
			return nil, err
		}
		c.certified[id.Member()] = key
		chain := c.ca.Sign(c.t, identitytest.Leaf{URIs: []string{id.URI()}}, key)
		resp.Certificates = append(resp.Certificates, &cav1.IssuedCertificate{Role: r.GetRole(), Chain: chain})
	}
	if c.answer != nil {
		return resp, c.answer(c.asked, resp)
	}
	return resp, nil
}

func (c *fakeCA) check(id identity.ID, r *cav1.CertificateRequest) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil || csr.CheckSignature() != nil {
		return nil, errs.New(errs.Invalid, "CSR")
	}
	key := csr.PublicKey.(*ecdsa.PublicKey)
	if id.Role == store && len(r.GetWrapKey()) != 32 {
		return nil, errs.New(errs.Invalid, "no wrap key")
	}
	sum := sha256.Sum256(r.GetCsr())
	if last := c.certified[id.Member()]; last != nil && !last.Equal(key) && !ecdsa.VerifyASN1(last, sum[:], r.GetProof()) {
		return nil, errs.New(errs.Exists, "%s belongs to another key", id)
	}
	return key, nil
}

// cluster starts a CA; the caller stops it.
func cluster(t *testing.T, env run.Env) (*fakeCA, func()) {
	t.Helper()
	ca := identitytest.New(t, env, "c1")
	f := &fakeCA{t: t, env: env, ca: ca, token: enroll.NewToken(env.Rand, ca.Root.Raw), certified: map[string]*ecdsa.PublicKey{}, bundle: ca.Bundle()}
	return f, f.serve(ca.Keeper(t, env, ca.ID(authzv1.Role_ROLE_CA, "m0")), caDNS)
}

func (c *fakeCA) serve(k *identity.Keeper, addr string) func() {
	env := c.env
	env.Metrics = testx.Env(c.t).Metrics
	server := rpc.NewServer(env, k)
	cav1.RegisterCertificateServiceServer(server.GRPC(), c)
	ctx, cancel := context.WithCancel(context.Background())
	done := run.Async(ctx, func(ctx context.Context) (struct{}, error) { return struct{}{}, server.Serve([]string{addr})(ctx) })
	synctest.Wait()
	return func() {
		cancel()
		<-done
	}
}

func (c *fakeCA) request(roles ...authzv1.Role) enroll.Request {
	return enroll.Request{Token: c.token.String(), Addresses: []string{caDNS}, Advertise: []string{"10.0.0.2"}, Roles: roles, Root: "/v"}
}

// machine is another machine on the same network.
func (c *fakeCA) machine() run.Env {
	env := c.env
	env.Files, env.Rand = testx.NewFiles(), run.NewRand(c.env.Rand.Uint64())
	return env
}

// left is what is on a machine's disk below /v.
func left(t *testing.T, files run.Files, dir string) []string {
	t.Helper()
	names, err := files.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, n := range names {
		if info, err := files.Stat(dir + "/" + n); err == nil && info.Mode()&fs.ModeDir == 0 {
			out = append(out, dir+"/"+n)
			continue
		}
		out = append(out, left(t, files, dir+"/"+n)...)
	}
	return out
}

func TestJoinWritesWhatEachProcessStartsFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cluster(t, testx.Env(t))
		defer stop()
		m := c.machine()
		got, err := enroll.Join(t.Context(), m, c.request(agent, mesh, store))
		if err != nil {
			t.Fatal(err)
		}
		for _, role := range []authzv1.Role{agent, mesh, store} {
			folder := "/v/" + identity.RoleName(role)
			k, err := identity.Load(m, folder+"/identity")
			if err != nil || k.ID() != c.ca.ID(role, got.MachineID) {
				t.Errorf("%v, %v", k, err)
			}
			dir, err := directory.New(m.Files, folder+"/directory.json")
			if err != nil || len(dir.Entries(authzv1.Role_ROLE_DISPATCHER)) != 1 {
				t.Errorf("%v, %v", dir, err)
			}
			if _, err := m.Files.Stat(folder + "/identity/" + identity.NextKeyFile); err == nil {
				t.Error("the next key is still there")
			}
		}
		if id, err := enroll.MachineID(m, "/v"); err != nil || id != got.MachineID || got.Cluster != "c1" {
			t.Errorf("%s, %v, %+v", id, err, got)
		}
	})
}

func TestASecondJoinProvesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cluster(t, testx.Env(t))
		defer stop()
		m := c.machine()
		first, err := enroll.Join(t.Context(), m, c.request(agent, store))
		if err != nil {
			t.Fatal(err)
		}
		wrap, err := m.Files.Read("/v/store/wrap.key")
		if err != nil {
			t.Fatal(err)
		}
		second, err := enroll.Join(t.Context(), m, c.request(agent, store))
		if err != nil || second.MachineID != first.MachineID {
			t.Fatal(second, err)
		}
		if again, err := m.Files.Read("/v/store/wrap.key"); err != nil || string(again) != string(wrap) {
			t.Error("the wrap key changed")
		}
		// A cloned disk without the keys is another machine that says it is this one.
		thief := c.machine()
		req := c.request(agent)
		req.MachineID = first.MachineID
		if _, err := enroll.Join(t.Context(), thief, req); !errs.Is(err, errs.Exists) {
			t.Error(err)
		}
	})
}

// The CA has certified the keys, and the answer is lost: join again proves itself with the same keys.
func TestALostAnswerIsJoinedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cluster(t, testx.Env(t))
		defer stop()
		m := c.machine()
		c.answer = func(int, *cav1.JoinResponse) error { return errs.New(errs.Unavailable, "lost") }
		if _, err := enroll.Join(t.Context(), m, c.request(agent)); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
		if c.asked < 10 {
			t.Errorf("asked %d times", c.asked)
		}
		if _, err := identity.Load(m, "/v/agent/identity"); err == nil {
			t.Error("half-joined")
		}
		c.answer = func(n int, _ *cav1.JoinResponse) error {
			if n%2 == 0 {
				return errs.New(errs.Unavailable, "an election")
			}
			return nil
		}
		if _, err := enroll.Join(t.Context(), m, c.request(agent)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestARefusedJoinLeavesTheMachineIDAlone(t *testing.T) {
	type step struct {
		spoil func(c *fakeCA, r *enroll.Request, m *run.Env)
		kind  errs.Kind
		words string
	}
	for name, s := range map[string]step{
		"wrong secret": {func(c *fakeCA, r *enroll.Request, _ *run.Env) {
			r.Token = enroll.NewToken(c.env.Rand, c.ca.Root.Raw).String()
		}, errs.Denied, "not in force"},
		"another cluster's token": {func(c *fakeCA, r *enroll.Request, _ *run.Env) {
			r.Token = enroll.NewToken(c.env.Rand, []byte("another root")).String()
		}, errs.Denied, "root certificate of " + caDNS + " is not the one in the token"},
		"malformed token":    {func(_ *fakeCA, r *enroll.Request, _ *run.Env) { r.Token = r.Token[:40] }, errs.Invalid, "not whole"},
		"all faults at once": {func(_ *fakeCA, r *enroll.Request, _ *run.Env) { *r = enroll.Request{Root: "/v"} }, errs.Invalid, "4 faults"},
		"a person's role":    {func(_ *fakeCA, r *enroll.Request, _ *run.Env) { r.Roles = []authzv1.Role{authzv1.Role_ROLE_OPERATOR} }, errs.Invalid, "operator is not a process's"},
		"dead address":       {func(_ *fakeCA, r *enroll.Request, _ *run.Env) { r.Addresses = []string{"dead:1"} }, errs.Unavailable, "no CA answers at dead:1"},
		"clock ahead":        {func(_ *fakeCA, _ *enroll.Request, m *run.Env) { m.Now = ahead(m.Now, time.Hour) }, errs.Precondition, "apart"},
		"clock behind":       {func(_ *fakeCA, _ *enroll.Request, m *run.Env) { m.Now = ahead(m.Now, -time.Hour) }, errs.Precondition, "apart"},
		"no bundle":          {func(c *fakeCA, _ *enroll.Request, _ *run.Env) { c.bundle = []byte("rubbish") }, errs.Denied, "no root certificate"},
		"a root added in between": {func(c *fakeCA, r *enroll.Request, _ *run.Env) {
			// Somebody in between shows the pinned root beside his own, and serves with his own certificate.
			evil := identitytest.New(c.t, c.env, "c1")
			c.bundle = identity.EncodeCertificates(c.ca.Root, evil.Root)
			c.serveEvil(evil)
			r.Addresses = []string{"evil:1"}
		}, errs.Denied, "cannot be believed"},
		"a server that is no ca": {func(c *fakeCA, r *enroll.Request, _ *run.Env) {
			c.stopLater(c.serve(c.ca.Keeper(c.t, c.env, c.ca.ID(agent, "m9")), "agent:1"))
			r.Addresses = []string{"agent:1"}
		}, errs.Denied, "wanted ca"},
		"certificate for another": {func(c *fakeCA, _ *enroll.Request, _ *run.Env) {
			c.answer = func(_ int, resp *cav1.JoinResponse) error { resp.ClusterId = "c2"; return nil }
		}, errs.Invalid, "of no use"},
		"no certificate": {func(c *fakeCA, _ *enroll.Request, _ *run.Env) {
			c.answer = func(_ int, resp *cav1.JoinResponse) error { resp.Certificates = nil; return nil }
		}, errs.Invalid, "of no use"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, stop := cluster(t, testx.Env(t))
				defer stop()
				m, req := c.machine(), c.request(agent, store)
				s.spoil(c, &req, &m)
				_, err := enroll.Join(t.Context(), m, req)
				if !errs.Is(err, s.kind) || !strings.Contains(err.Error(), s.words) {
					t.Errorf("wanted %v with %q, got %v", s.kind, s.words, err)
				}
				if err != nil && strings.Contains(err.Error(), c.token.Secret) {
					t.Error("the error has the secret in it")
				}
				for _, f := range left(t, m.Files, "/v") {
					// Keys that the CA has certified must stay: without them the machine could never join again.
					if f != "/v/machine-id" && !strings.HasSuffix(f, identity.NextKeyFile) && f != "/v/store/wrap.key" {
						t.Error("left behind:", f)
					}
					if f != "/v/machine-id" && len(c.certified) == 0 {
						t.Error("left behind, though nobody certified it:", f)
					}
				}
			})
		})
	}
}

func ahead(now func() time.Time, d time.Duration) func() time.Time {
	return func() time.Time { return now().Add(d) }
}

func (c *fakeCA) serveEvil(evil *identitytest.Authority) {
	c.stopLater(c.serve(evil.Keeper(c.t, c.env, evil.ID(authzv1.Role_ROLE_CA, "m0")), "evil:1"))
}

func (c *fakeCA) stopLater(stop func()) { c.t.Cleanup(stop) }

func TestAMemberOfAnotherClusterIsToldToLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cluster(t, testx.Env(t))
		defer stop()
		m := c.machine()
		other := identitytest.New(t, m, "c9")
		other.Write(t, m, "/v/agent/identity", identitytest.Leaf{URIs: []string{other.ID(agent, "m1").URI()}})
		before := left(t, m.Files, "/v")
		_, err := enroll.Join(t.Context(), m, c.request(mesh, agent))
		if !errs.Is(err, errs.Precondition) || !strings.Contains(err.Error(), "shoal leave") {
			t.Error(err)
		}
		if after := left(t, m.Files, "/v"); len(after) != len(before)+1 {
			t.Errorf("before %v, after %v", before, after)
		}
	})
}

// fullDisk fails writes after the n-th.
type fullDisk struct {
	run.Files
	n int
}

func (f *fullDisk) Write(name string, data []byte, mode fs.FileMode) error {
	if f.n--; f.n < 0 && !strings.HasSuffix(name, identity.NextKeyFile) {
		return errs.New(errs.Exhausted, "no space left on device")
	}
	return f.Files.Write(name, data, mode)
}

// Whatever write fails, there is either no certificate or a whole one, and joining again works.
func TestADiskThatFillsUpLeavesNothingHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := cluster(t, testx.Env(t))
		defer stop()
		for n := range 20 {
			m := c.machine()
			disk := &fullDisk{m.Files, n}
			m.Files = disk
			_, err := enroll.Join(t.Context(), m, c.request(agent, store))
			if err == nil {
				if n < 8 {
					t.Errorf("%d writes were enough", n)
				}
				continue
			}
			for _, f := range left(t, m.Files, "/v") {
				if strings.HasSuffix(f, identity.CertFile) || strings.HasSuffix(f, identity.KeyFile) {
					t.Errorf("after %d writes: left behind %s", n, f)
				}
			}
			disk.n = 1000
			if _, err := enroll.Join(t.Context(), m, c.request(agent, store)); err != nil {
				t.Errorf("after %d writes, with space again: %v", n, err)
			}
		}
	})
}
