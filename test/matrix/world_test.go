// Package matrix holds the running processes to what is written about them: which service each serves, who may call it,
// and what it measures.
//
// That every rule is enforced, allowed callers included, is shown on a server of stubs by internal/authz/authztest, whose
// rules.txt says who may call what. Here the real processes stand in a simulated cluster, and the same rows are walked to
// see that none has a door beside the rules. Allowed calls would do what they say, so only a few are made.
package matrix

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/authz/authztest"
	"github.com/shoalproject/shoal/internal/commit"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/identity/identitytest"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/test/sim"
)

const (
	issuingDir = "/var/lib/shoal/ca/issuing"
	removed    = "removed"
)

// state is what is wrong with a caller's certificate.
type state string

const (
	sound        state = "sound"
	otherCluster state = "of another cluster"
	expired      state = "expired"
	inGrace      state = "expired, within the grace"
	denied       state = "denied"
)

func states() []state { return []state{sound, otherCluster, expired, inGrace, denied} }

// process is one that listens.
type process struct {
	role    authzv1.Role
	address string
}

// world is a small cluster of every process, and somebody with a copy of its issuing key: the strongest forger there is
// short of the root, who still must get no further than the rules let the role that he forges.
type world struct {
	*sim.Cluster
	t       *testing.T
	cluster string
	issuer  *x509.Certificate
	key     *ecdsa.PrivateKey
	alien   *identitytest.Authority
	env     run.Env // of the forger's own machine
	serial  int64
}

// newWorld must be called in a bubble.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, Cluster: sim.New(t, 1, sim.Plan{
		{Host: "m1", Roles: []authzv1.Role{
			authzv1.Role_ROLE_CA, authzv1.Role_ROLE_STORE, authzv1.Role_ROLE_SCHEDULER, authzv1.Role_ROLE_DISPATCHER,
			authzv1.Role_ROLE_GATEWAY,
		}},
		{Host: "n1", Roles: []authzv1.Role{authzv1.Role_ROLE_AGENT, authzv1.Role_ROLE_MESHPROXY}},
	})}
	files := w.Machine("m1").Disk.Files()
	certs, err := files.Read(path.Join(issuingDir, identity.CertFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := files.Read(path.Join(issuingDir, identity.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.DecodeCertificates(certs)
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = chain[0]
	if w.key, err = identity.DecodeKey(key); err != nil {
		t.Fatal(err)
	}
	w.sitDown()
	w.alien = identitytest.New(t, w.env, "alien")
	w.remove()
	return w
}

// sitDown takes the env of a machine that is not of the cluster.
func (w *world) sitDown() {
	w.t.Helper()
	envs := make(chan run.Env, 1)
	err := w.W.Host("forger", "10.9.254.1").Start("tools", func(ctx context.Context, env run.Env) error {
		envs <- env
		<-ctx.Done()
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.env = <-envs
	self, err := w.Machine("m1").Disk.Files().Read("/var/lib/shoal/ca/identity/" + identity.CertFile)
	if err != nil {
		w.t.Fatal(err)
	}
	leaves, err := identity.DecodeCertificates(self)
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := identity.OfCertificate(leaves[0])
	if err != nil {
		w.t.Fatal(err)
	}
	w.cluster = id.Cluster
}

// remove puts one identity of every role on the deny list, and waits until every process has heard of it.
func (w *world) remove() {
	w.t.Helper()
	conn := w.dial(w.addressOf(authzv1.Role_ROLE_STORE), authzv1.Role_ROLE_CA, sound)
	defer conn.Close()
	tx := &storev1.Transaction{}
	for _, r := range authztest.Roles() {
		until := timestamppb.New(w.env.Now().Add(time.Hour))
		tx.Puts = append(tx.Puts, &storev1.Put{
			Create: true, Fields: []string{"reason", "until"},
			Object: &typesv1.Object{Kind: &typesv1.Object_Denial{Denial: &typesv1.Denial{
				Meta: &typesv1.Meta{Id: w.id(r, removed).Member()}, Reason: "test", Until: until,
			}}},
		})
	}
	if _, err := commit.New(storev1.NewCommitServiceClient(conn), w.env.Rand).Do(w.t.Context(), tx); err != nil {
		w.t.Fatal(err)
	}
	if err := run.Sleep(w.t.Context(), 10*time.Second); err != nil { // more than any process is behind
		w.t.Fatal(err)
	}
}

func (w *world) id(role authzv1.Role, name string) identity.ID {
	return identity.ID{Cluster: w.cluster, Role: role, Name: name}
}

// listeners are the processes that listen. An agent does not.
func (w *world) listeners() []process {
	var out []process
	for _, m := range w.Machines {
		for _, r := range m.Roles {
			if port := ports()[r]; port != 0 {
				out = append(out, process{r, fmt.Sprintf("%s:%d", m.Address, port)})
			}
		}
	}
	return out
}

func ports() map[authzv1.Role]int {
	return map[authzv1.Role]int{
		authzv1.Role_ROLE_CA: 2377, authzv1.Role_ROLE_STORE: 2381, authzv1.Role_ROLE_SCHEDULER: 2382,
		authzv1.Role_ROLE_DISPATCHER: 2383, authzv1.Role_ROLE_GATEWAY: 2384, authzv1.Role_ROLE_MESHPROXY: 2385,
	}
}

func (w *world) addressOf(role authzv1.Role) string {
	i := slices.IndexFunc(w.listeners(), func(p process) bool { return p.role == role })
	return w.listeners()[i].address
}

// dial makes a client with a forged certificate, or none for ROLE_ANONYMOUS. It believes any server.
func (w *world) dial(address string, role authzv1.Role, s state) *grpc.ClientConn {
	w.t.Helper()
	config := identity.BlindTLS(w.env, "h2")
	if role != authzv1.Role_ROLE_ANONYMOUS {
		cert := w.forge(role, s)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	conn, err := rpc.DialTLS(w.env, address, config)
	if err != nil {
		w.t.Fatal(err)
	}
	return conn
}

func (w *world) forge(role authzv1.Role, s state) tls.Certificate {
	w.t.Helper()
	now := w.env.Now()
	id, from, to := w.id(role, name(role)), now.Add(-time.Second), now.Add(time.Hour)
	switch s {
	case sound:
	case otherCluster:
		return w.alien.Certificate(w.t, identitytest.Leaf{URIs: []string{w.alien.ID(role, name(role)).URI()}})
	case expired:
		from, to = now.Add(-201*24*time.Hour), now.Add(-200*24*time.Hour)
	case inGrace:
		from, to = now.Add(-2*time.Second), now.Add(-time.Second)
	case denied:
		id.Name = removed
	}
	uri, err := url.Parse(id.URI())
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := identity.NewKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	w.serial++
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(w.serial), NotBefore: from, NotAfter: to, URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}, w.issuer, &key.PublicKey, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, w.issuer.Raw}, PrivateKey: key}
}

func name(role authzv1.Role) string {
	if identity.IsPerson(role) {
		return "eve"
	}
	return "forger"
}

// rules are the rows of every RPC.
func rules(t *testing.T) []authztest.Rule {
	t.Helper()
	text, err := os.ReadFile("../../internal/authz/authztest/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	out, err := authztest.Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// written are the services of each process, as testdata/processes.txt has them.
func written(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/processes.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 2 {
			t.Fatalf("processes.txt: %q is not a process and a service", line)
		}
		if fields[1] != "-" {
			out[fields[0]] = append(out[fields[0]], fields[1])
		}
	}
	return out
}
