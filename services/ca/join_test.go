package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// joiner is a hand-made join request, to be spoilt.
type joiner struct {
	world *world
	env   run.Env
	key   *ecdsa.PrivateKey
	req   *cav1.JoinRequest
}

func (w *world) joiner(seed uint64) *joiner {
	w.t.Helper()
	env := w.machine("by hand", seed)
	key, err := identity.NewKey(env.Rand)
	if err != nil {
		w.t.Fatal(err)
	}
	j := &joiner{world: w, env: env, key: key, req: &cav1.JoinRequest{
		Token: w.made.WorkerToken, MachineId: identity.NewID(env.Rand), Hostname: "byhand", Addresses: []string{"10.0.0.9"}, Version: "v1",
	}}
	j.req.Requests = []*cav1.CertificateRequest{j.request(authzv1.Role_ROLE_AGENT, key)}
	return j
}

func (j *joiner) request(role authzv1.Role, key *ecdsa.PrivateKey) *cav1.CertificateRequest {
	j.world.t.Helper()
	csr, err := identity.CSR(j.env.Rand, key)
	if err != nil {
		j.world.t.Fatal(err)
	}
	return &cav1.CertificateRequest{Role: role, Csr: csr}
}

// call asks the first CA; the clock in the request is this moment's unless it was set.
func (j *joiner) call() (*cav1.JoinResponse, error) {
	j.world.t.Helper()
	time.Sleep(2 * time.Second) // see world.join
	roots, err := identity.DecodeCertificates([]byte(j.world.made.Bundle))
	if err != nil {
		j.world.t.Fatal(err)
	}
	conn, err := rpc.DialTLS(j.env, caAddress, identity.PinnedTLS(j.env, roots[0], "h2", authzv1.Role_ROLE_CA))
	if err != nil {
		j.world.t.Fatal(err)
	}
	defer conn.Close()
	if j.req.GetNow() == nil {
		j.req.Now = timestamppb.New(j.env.Now())
	}
	ctx, cancel := context.WithTimeout(j.world.ctx, 10*time.Second)
	defer cancel()
	return cav1.NewCertificateServiceClient(conn).Join(ctx, j.req)
}

func (j *joiner) leaf(resp *cav1.JoinResponse) *x509.Certificate {
	j.world.t.Helper()
	return verifyLeaf(j.world.t, resp.GetCertificates()[0].GetChain(), resp.GetBundle(), j.env.Now())
}

func TestJoinOfAWorkerByTheRealClient(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		r := w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		for _, role := range workerRoles() {
			if _, err := identity.Load(env, shoalDir+"/"+identity.RoleName(role)+"/identity"); err != nil {
				t.Error(err)
			}
			id := identity.ID{Role: role, Name: r.MachineID}.Member()
			if w.store.Snapshot().Credential(id) == nil {
				t.Errorf("no credential of %s", id)
			}
		}
		n := w.store.Snapshot().Node(r.MachineID)
		if n.GetSpec().GetRole() != typesv1.NodeRole_NODE_ROLE_WORKER || n.GetSpec().GetAvailability() != typesv1.Availability_AVAILABILITY_ACTIVE ||
			n.GetIdentity().GetHostname() != "second" || len(n.GetIdentity().GetRoles()) != 2 {
			t.Errorf("node: %v", n)
		}
		if len(r.Directory.GetEntries()) != 5 {
			t.Errorf("directory: %v", r.Directory)
		}
	})
}

func TestJoinTwiceGivesFreshCertificates(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		before, _ := env.Files.Read(shoalDir + "/agent/identity/cert.pem")
		// The second time the machine has other keys, and proves itself with those certified last.
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		after, _ := env.Files.Read(shoalDir + "/agent/identity/cert.pem")
		if string(before) == string(after) {
			t.Error("the second join gave the same certificate")
		}
	})
}

func TestJoinRefusals(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(w *world, j *joiner)
		kind  errs.Kind
		says  string
	}{
		{"wrong secret", func(_ *world, j *joiner) {
			last := map[bool]string{true: "1", false: "0"}[strings.HasSuffix(j.req.GetToken(), "0")]
			j.req.Token = j.req.GetToken()[:len(j.req.GetToken())-1] + last
		}, errs.Denied, "shoal join-token worker"},
		{"rotated token", func(w *world, _ *joiner) { w.rotate(typesv1.NodeRole_NODE_ROLE_WORKER) }, errs.Denied, "rotated away"},
		{"malformed token", func(_ *world, j *joiner) { j.req.Token = "SHOAL-1-abc" }, errs.Denied, "shoal join-token worker"},
		{"no token", func(_ *world, j *joiner) { j.req.Token = "" }, errs.Denied, "shoal join-token worker"},
		{"token of another cluster", func(_ *world, j *joiner) {
			secret := j.req.GetToken()[len(j.req.GetToken())-25:]
			j.req.Token = enroll.Token{Digest: strings.Repeat("0", 50), Secret: secret}.String()
		}, errs.Denied, "another cluster"},
		{"clock an hour off", func(_ *world, j *joiner) { j.req.Now = timestamppb.New(j.env.Now().Add(time.Hour)) }, errs.Precondition, "clock"},
		{"manager's role with a worker's token", func(_ *world, j *joiner) {
			r := j.request(authzv1.Role_ROLE_STORE, j.key)
			r.WrapKey = make([]byte, 32)
			j.req.Requests = append(j.req.Requests, r)
		}, errs.Denied, "shoal join-token manager"},
		{"operator", func(_ *world, j *joiner) { j.req.Requests[0].Role = authzv1.Role_ROLE_OPERATOR }, errs.Invalid, "operator"},
		{"machine id of the first machine", func(w *world, j *joiner) { j.req.MachineId = w.made.MachineID }, errs.Exists, "shoal node rm"},
		{"removed machine", func(w *world, j *joiner) {
			id := identity.ID{Role: authzv1.Role_ROLE_AGENT, Name: j.req.GetMachineId()}.Member()
			w.store.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: id}, Reason: "node rm"}))
		}, errs.Denied, "was removed"},
		{"nothing in it", func(_ *world, j *joiner) {
			j.req.MachineId, j.req.Hostname, j.req.Addresses, j.req.Requests = "X", "", nil, nil
		}, errs.Invalid, "4 faults"},
		{"csr of another algorithm", func(_ *world, j *joiner) { j.req.Requests[0].Csr = []byte("x") }, errs.Invalid, "PKCS #10"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				j := w.joiner(7)
				c.spoil(w, j)
				nodes, credentials := w.store.Snapshot().Count(typesv1.Kind_KIND_NODE), w.store.Snapshot().Count(typesv1.Kind_KIND_CREDENTIAL)
				_, err := j.call()
				if !errs.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("got %v (%v), wanted %v with %q", err, errs.KindOf(err), c.kind, c.says)
				}
				s := w.store.Snapshot()
				if s.Count(typesv1.Kind_KIND_NODE) != nodes || s.Count(typesv1.Kind_KIND_CREDENTIAL) != credentials {
					t.Error("a refused join has left objects in the store")
				}
				if !strings.Contains(w.logged(), "decision=refusal") {
					t.Error("the refusal is not in the audit log")
				}
			})
		})
	}
}

func TestCSRNamesAreIgnored(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.joiner(7)
		evil, _ := url.Parse("spiffe://" + w.made.ClusterID + "/operator/admin")
		csr, err := x509.CreateCertificateRequest(j.env.Rand, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "operator/admin", Organization: []string{"evil"}}, URIs: []*url.URL{evil},
			DNSNames: []string{"evil.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, EmailAddresses: []string{"a@evil.example"},
			// A request to be an authority.
			ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}},
		}, j.key)
		if err != nil {
			t.Fatal(err)
		}
		j.req.Requests[0].Csr = csr
		resp, err := j.call()
		if err != nil {
			t.Fatal(err)
		}
		leaf := j.leaf(resp)
		id, err := identity.OfCertificate(leaf)
		if want := (identity.ID{Cluster: w.made.ClusterID, Role: authzv1.Role_ROLE_AGENT, Name: j.req.GetMachineId()}); err != nil || id != want {
			t.Errorf("identity %v (%v), wanted %v", id, err, want)
		}
		if leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 || leaf.Subject.CommonName != id.Member() || len(leaf.Subject.Organization) > 0 {
			t.Errorf("taken from the request: %v %v %v %v", leaf.Subject, leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses)
		}
	})
}

func TestARetryProvesItself(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.joiner(7)
		if _, err := j.call(); err != nil {
			t.Fatal(err)
		}
		// The same keys again: the answer was lost.
		if _, err := j.call(); err != nil {
			t.Errorf("the same keys: %v", err)
		}
		// Another key with a proof by the one certified last.
		next, _ := identity.NewKey(j.env.Rand)
		r := j.request(authzv1.Role_ROLE_AGENT, next)
		sum := sha256.Sum256(r.GetCsr())
		r.Proof, _ = ecdsa.SignASN1(j.env.Rand, j.key, sum[:])
		j.req.Requests[0] = r
		if _, err := j.call(); err != nil {
			t.Errorf("with a proof: %v", err)
		}
		// A proof by the key before that is none any more, nor is one over something else.
		third, _ := identity.NewKey(j.env.Rand)
		r = j.request(authzv1.Role_ROLE_AGENT, third)
		sum = sha256.Sum256(r.GetCsr())
		r.Proof, _ = ecdsa.SignASN1(j.env.Rand, j.key, sum[:])
		j.req.Requests[0] = r
		if _, err := j.call(); !errs.Is(err, errs.Exists) {
			t.Errorf("with a proof by an older key: %v", err)
		}
		// A role that the machine has not had needs the machine's proof too.
		j.req.Requests[0] = j.request(authzv1.Role_ROLE_MESHPROXY, third)
		if _, err := j.call(); !errs.Is(err, errs.Exists) {
			t.Errorf("another role of a machine that is known: %v", err)
		}
	})
}

func TestRotatedTokenIsRefusedByACAThatHasNotHeardOfIt(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.joiner(7)
		// The rotation, by another CA, reaches the store between this CA's look and its commit.
		rotated := false
		c := w.store.Snapshot().Cluster()
		hook := func() {
			next := &typesv1.Cluster{Meta: &typesv1.Meta{Id: c.GetMeta().GetId()}, Spec: c.GetSpec(), Authority: c.GetAuthority(),
				Tokens: &typesv1.JoinTokens{Worker: &typesv1.JoinToken{Counter: 2, Hash: make([]byte, 32)}, Manager: c.GetTokens().GetManager()}}
			w.store.Put(state.Wrap(next))
		}
		w.beforeCommit(func() {
			if !rotated {
				rotated = true
				hook()
			}
		})
		if _, err := j.call(); !errs.Is(err, errs.Denied) {
			t.Errorf("a token that was rotated away a moment ago: %v", err)
		}
		if !rotated || w.store.Snapshot().Node(j.req.GetMachineId()) != nil {
			t.Error("the machine was let in")
		}
	})
}

func TestCertificateLeavesOnlyAfterItsRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		w.store.SetQuorum(false)
		j := w.joiner(7)
		if resp, err := j.call(); !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "store") {
			t.Errorf("without a quorum: %v %v", resp, err)
		}
		w.store.SetQuorum(true)
		resp, err := j.call()
		if err != nil {
			t.Fatal(err)
		}
		c := w.store.Snapshot().Credential("agent/" + j.req.GetMachineId())
		if c.GetSerial() != identity.Serial(j.leaf(resp)) {
			t.Errorf("the record has serial %s, the certificate %s", c.GetSerial(), identity.Serial(j.leaf(resp)))
		}
	})
}

func TestJoinIsLimitedByAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		j := w.joiner(7)
		roots, _ := identity.DecodeCertificates([]byte(w.made.Bundle))
		conn, err := rpc.DialTLS(j.env, caAddress, identity.PinnedTLS(j.env, roots[0], "h2", authzv1.Role_ROLE_CA))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		j.req.Token = "SHOAL-1-guess"
		refused := 0
		for range 20 {
			if _, err := cav1.NewCertificateServiceClient(conn).Join(w.ctx, j.req); errs.Is(err, errs.Exhausted) {
				refused++
			}
		}
		if refused < 14 {
			t.Errorf("%d of 20 guesses at once were refused for their number", refused)
		}
	})
}

// beforeCommit calls f before each transaction is applied.
func (w *world) beforeCommit(f func()) {
	w.store.OnCommit(func(*storev1.Transaction) error { f(); return nil })
}
