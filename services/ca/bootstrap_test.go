package ca_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/testx"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	"github.com/shoalproject/shoal/services/ca"
)

// verifyLeaf checks a chain below a bundle at a time, and returns the leaf.
func verifyLeaf(t *testing.T, chain, bundle []byte, at time.Time) *x509.Certificate {
	t.Helper()
	certs, err := identity.DecodeCertificates(chain)
	if err != nil {
		t.Fatal(err)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatal("no root in the bundle")
	}
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := certs[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
		}); err != nil {
			t.Fatalf("%s: %v", certs[0].Subject, err)
		}
	}
	return certs[0]
}

func TestBootstrapMakesAWholeMachine(t *testing.T) {
	env := testx.Env(t)
	made, err := ca.Bootstrap(bootstrapConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range managerRoles() {
		dir := shoalDir + "/" + identity.RoleName(role) + "/identity/"
		chain, _ := env.Files.Read(dir + "cert.pem")
		bundle, _ := env.Files.Read(dir + "bundle.pem")
		key, _ := env.Files.Read(dir + "key.pem")
		leaf := verifyLeaf(t, chain, bundle, env.Now())
		id, err := identity.OfCertificate(leaf)
		if want := (identity.ID{Cluster: made.ClusterID, Role: role, Name: made.MachineID}); err != nil || id != want {
			t.Errorf("identity of %s: %v (%v), wanted %v", role, id, err, want)
		}
		if _, err := tls.X509KeyPair(chain, key); err != nil {
			t.Errorf("key of %s: %v", role, err)
		}
		if got := leaf.NotAfter.Sub(env.Now()); got > 72*time.Hour || got < 71*time.Hour {
			t.Errorf("life of %s: %s, wanted 72h", role, got)
		}
		dialled := role == authzv1.Role_ROLE_GATEWAY || role == authzv1.Role_ROLE_CA || role == authzv1.Role_ROLE_STORE
		if (leaf.VerifyHostname(firstHost) == nil) != dialled || (leaf.VerifyHostname("first.example") == nil) != dialled {
			t.Errorf("names of %s: %v %v", role, leaf.IPAddresses, leaf.DNSNames)
		}
		if _, err := env.Files.Stat(shoalDir + "/" + identity.RoleName(role) + "/directory.json"); err != nil {
			t.Error(err)
		}
	}
	for name, want := range map[string]fs.FileMode{
		"ca/identity/key.pem": 0o600, "agent/identity/key.pem": 0o600, "ca/issuing/key.pem": 0o600, "ca/wrap.key": 0o600, "store/wrap.key": 0o600,
		"store/first-transaction.pb": 0o600, "ca/identity/cert.pem": 0o644, "ca/identity/bundle.pem": 0o644, "ca/issuing/cert.pem": 0o644,
	} {
		if got := modeOf(t, env.Files, shoalDir+"/"+name); got != want {
			t.Errorf("mode of %s is %o, wanted %o", name, got, want)
		}
	}
	operator := verifyLeaf(t, []byte(made.OperatorCert), []byte(made.Bundle), env.Now().Add(360*24*time.Hour))
	if id, _ := identity.OfCertificate(operator); id.Role != authzv1.Role_ROLE_OPERATOR || id.Name != "admin" {
		t.Errorf("operator is %v", id)
	}
	if _, err := tls.X509KeyPair([]byte(made.OperatorCert), []byte(made.OperatorKey)); err != nil {
		t.Error(err)
	}
}

func TestBootstrapWritesTheFirstTransaction(t *testing.T) {
	env := testx.Env(t)
	made, err := ca.Bootstrap(bootstrapConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	data, err := env.Files.Read(shoalDir + "/store/first-transaction.pb")
	if err != nil {
		t.Fatal(err)
	}
	tx := &storev1.Transaction{}
	if err := proto.Unmarshal(data, tx); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, p := range tx.GetPuts() {
		if !p.GetCreate() || len(p.GetFields()) == 0 {
			t.Errorf("put %v creates nothing", p)
		}
		o := p.GetObject()
		switch {
		case o.GetCluster() != nil:
			kinds["cluster"]++
			c := o.GetCluster()
			if c.GetMeta().GetId() != made.ClusterID || c.GetSpec().GetTaskHistoryLimit() != 5 || c.GetSpec().GetFirstPort() != 30000 ||
				c.GetDataPath().GetPort() != 8477 || len(c.GetAuthority().GetKeyset()) != 1 || len(c.GetTokens().GetWorker().GetHash()) != 32 {
				t.Errorf("cluster: %v", c)
			}
		case o.GetNode() != nil:
			kinds["node"]++
		case o.GetMember() != nil:
			kinds["member"]++
		case o.GetCredential() != nil:
			kinds["credential"]++
		}
	}
	for kind, want := range map[string]int{"cluster": 1, "node": 1, "member": 5, "credential": 8} {
		if kinds[kind] != want {
			t.Errorf("%d %ss, wanted %d", kinds[kind], kind, want)
		}
	}
	if tx.GetCaller().GetRole() != authzv1.Role_ROLE_CA || tx.GetClusterTime() == nil || tx.GetRequestId() == "" {
		t.Errorf("head of the transaction: %v %v %q", tx.GetCaller(), tx.GetClusterTime(), tx.GetRequestId())
	}
}

func TestBootstrapWritesNeitherRootKeyNorTokens(t *testing.T) {
	env := testx.Env(t)
	made, err := ca.Bootstrap(bootstrapConfig(), env)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range made.Written {
		data, err := env.Files.Read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for _, token := range []string{made.WorkerToken, made.ManagerToken} {
			if secret := token[strings.LastIndexByte(token, '-')+1:]; strings.Contains(string(data), secret) {
				t.Errorf("%s has a token's secret", name)
			}
		}
		if strings.HasSuffix(name, ".pb") && strings.Contains(string(data), "PRIVATE KEY") {
			t.Errorf("%s has a private key in clear", name)
		}
		root, _ := identity.DecodeCertificates([]byte(made.Bundle))
		if key, err := identity.DecodeKey(data); err == nil && key.PublicKey.Equal(root[0].PublicKey) {
			t.Errorf("%s has the root's key", name)
		}
	}
}

func TestBootstrapTwiceIsRefusedAndChangesNothing(t *testing.T) {
	env := testx.Env(t)
	if _, err := ca.Bootstrap(bootstrapConfig(), env); err != nil {
		t.Fatal(err)
	}
	before, _ := env.Files.Read(shoalDir + "/ca/identity/cert.pem")
	_, err := ca.Bootstrap(bootstrapConfig(), env)
	if !errs.Is(err, errs.Exists) || !strings.Contains(err.Error(), "shoal leave") {
		t.Fatalf("a second bootstrap: %v", err)
	}
	after, _ := env.Files.Read(shoalDir + "/ca/identity/cert.pem")
	if string(before) != string(after) {
		t.Error("the second bootstrap changed a certificate")
	}
}

// fullDisk fails at one file.
type fullDisk struct {
	run.Files
	at string
}

func (d fullDisk) Write(name string, data []byte, mode fs.FileMode) error {
	if strings.HasSuffix(name, d.at) {
		return errors.New("no space left on device")
	}
	return d.Files.Write(name, data, mode)
}

func TestBootstrapThatFailsTakesBackWhatItMade(t *testing.T) {
	for _, at := range []string{"first-transaction.pb", "gateway/identity/key.pem", "store/wrap.key", "issuing/cert.pem"} {
		env := testx.Env(t)
		files := env.Files
		env.Files = fullDisk{files, at}
		if _, err := ca.Bootstrap(bootstrapConfig(), env); err == nil {
			t.Fatalf("%s: no error", at)
		}
		if left, _ := files.List(shoalDir); len(left) != 1 || left[0] != "machine-id" {
			t.Errorf("%s: left %v", at, left)
		}
		env.Files = files
		if _, err := ca.Bootstrap(bootstrapConfig(), env); err != nil {
			t.Errorf("%s: the next try: %v", at, err)
		}
	}
}

func TestBootstrapNamesAllFaults(t *testing.T) {
	cfg := ca.BootstrapConfig{
		Roles: []string{"ca", "king", "ca"}, Operator: "Ädmin", MachineID: "x", MachineNetwork: "10.0.0.0/8", NetworkPool: "10.0.0.0/9",
		Ports: map[string]int{"gateway": 99999}, Root: "relative",
	}
	_, err := ca.Bootstrap(cfg, testx.Env(t))
	if got := len(errs.FaultsOf(err)); got < 9 {
		t.Errorf("%d faults: %v", got, err)
	}
}
