package ca_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// renewOnce renews the certificate in a folder by the CA at an address.
func (w *world) renewOnce(env run.Env, dir, addr string) (*identity.Keeper, error) {
	w.t.Helper()
	keeper, err := identity.Load(env, dir)
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := rpc.DialAddress(process(env), keeper, addr, authzv1.Role_ROLE_CA)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	return keeper, keeper.RenewOnce(ctx, func(ctx context.Context, csr []byte) (chain, bundle []byte, err error) {
		resp, err := cav1.NewCertificateServiceClient(conn).Renew(ctx, &cav1.RenewRequest{Csr: csr, Version: "v1"})
		return resp.GetChain(), resp.GetBundle(), err
	})
}

const agentDir = shoalDir + "/agent/identity"

func TestRenewalKeepsTheIdentityAndRecordsTheNewOne(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		before, _ := identity.Load(env, agentDir)
		keeper, err := w.renewOnce(env, agentDir, caAddress)
		if err != nil {
			t.Fatal(err)
		}
		if keeper.ID() != before.ID() || keeper.Certificate().Equal(before.Certificate()) {
			t.Errorf("renewed %v into %v", before.ID(), keeper.ID())
		}
		c := w.store.Snapshot().Credential(keeper.ID().Member())
		if c.GetSerial() != identity.Serial(keeper.Certificate()) {
			t.Errorf("the record has serial %s, the certificate %s", c.GetSerial(), identity.Serial(keeper.Certificate()))
		}
	})
}

func TestRenewalTakesNamesFromTheStore(t *testing.T) {
	inWorld(t, func(w *world) {
		gateway := shoalDir + "/gateway/identity"
		m := proto.CloneOf(w.store.Snapshot().Member("gateway/" + w.made.MachineID))
		m.Addresses = []string{"10.9.9.9:2384", "gw.example:2384"}
		w.store.Put(state.Wrap(m))
		time.Sleep(time.Second)
		keeper, err := w.renewOnce(w.first, gateway, caAddress)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"10.9.9.9", "gw.example", "first"} {
			if err := keeper.Certificate().VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
		if keeper.Certificate().VerifyHostname(firstHost) == nil {
			t.Error("the old address is still in the certificate")
		}
	})
}

func TestAnExpiredCertificateIsRenewedWithinTheGraceAndNotAfter(t *testing.T) {
	inWorld(t, func(w *world) {
		env, late := w.machine("second", 2), w.machine("third", 3)
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		w.mustJoin(late, w.made.WorkerToken, "10.0.0.3", workerRoles())
		w.forward(60 * 24 * time.Hour)
		if keeper, err := w.renewOnce(env, agentDir, caAddress); err != nil || keeper.Expired() {
			t.Errorf("after 60 days: %v", err)
		}
		w.forward(60 * 24 * time.Hour)
		if _, err := w.renewOnce(late, agentDir, caAddress); err == nil {
			t.Error("after 120 days a certificate of 72 h was renewed")
		}
	})
}

func TestEverythingOffForFiveDaysComesBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.forward(5 * 24 * time.Hour)
		for _, role := range []string{"ca", "store"} {
			keeper, err := identity.Load(w.first, shoalDir+"/"+role+"/identity")
			if err != nil || keeper.Expired() {
				t.Errorf("%s: expired, or %v", role, err)
			}
		}
		if w.tokenOf(typesv1.NodeRole_NODE_ROLE_WORKER) == "" {
			t.Error("the CA does not answer")
		}
	})
}

func TestARemovedIdentityIsNotRenewed(t *testing.T) {
	inWorld(t, func(w *world) {
		env := w.machine("second", 2)
		r := w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		// The removal reaches the store after the handshake and this CA's look.
		removed := false
		w.beforeCommit(func() {
			if !removed {
				removed = true
				w.store.Put(state.Wrap(&typesv1.Denial{Meta: &typesv1.Meta{Id: "agent/" + r.MachineID}, Reason: "node rm"}))
			}
		})
		before := w.store.Snapshot().Credential("agent/" + r.MachineID).GetSerial()
		if _, err := w.renewOnce(env, agentDir, caAddress); err == nil {
			t.Error("renewed")
		}
		if w.store.Snapshot().Credential("agent/"+r.MachineID).GetSerial() != before || !removed {
			t.Error("a certificate of a removed identity was recorded")
		}
	})
}

func TestOperatorRenewsForAYear(t *testing.T) {
	inWorld(t, func(w *world) {
		env, dir := w.operator()
		keeper, err := w.renewOnce(env, dir, caAddress)
		if err != nil {
			t.Fatal(err)
		}
		if left := keeper.Certificate().NotAfter.Sub(env.Now()); left < 364*24*time.Hour {
			t.Errorf("the operator's next certificate lasts %s", left)
		}
	})
}

func TestIssuingCertificateIsReplacedAtTwoThirds(t *testing.T) {
	inWorld(t, func(w *world) {
		read := func() string {
			data, err := w.first.Files.Read(shoalDir + "/ca/issuing/cert.pem")
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		first := read()
		w.forward(19 * 24 * time.Hour)
		if read() != first {
			t.Error("replaced before two thirds of its life")
		}
		w.forward(36 * time.Hour)
		second := read()
		if second == first {
			t.Fatal("not replaced at two thirds of its life")
		}
		if modeOf(t, w.first.Files, shoalDir+"/ca/issuing/key.pem") != 0o600 {
			t.Error("the new issuing key is readable by others")
		}
		// Leaves come from the new one, and those of the old one are still accepted.
		env := w.machine("second", 2)
		w.mustJoin(env, w.made.WorkerToken, "10.0.0.2", workerRoles())
		chain, _ := env.Files.Read(agentDir + "/cert.pem")
		if !strings.Contains(string(chain), second) {
			t.Error("a leaf is not from the new issuing certificate")
		}
		verifyLeaf(t, chain, []byte(w.made.Bundle), env.Now())
	})
}

func TestGetRootNeedsNoStore(t *testing.T) {
	inWorld(t, func(w *world) {
		w.store.SetQuorum(false)
		w.store.Break()
		conn, err := rpc.DialTLS(w.first, caAddress, identity.BlindTLS(w.first, "h2"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		resp, err := cav1.NewCertificateServiceClient(conn).GetRoot(w.ctx, &cav1.GetRootRequest{})
		if err != nil || string(resp.GetBundle()) != w.made.Bundle {
			t.Errorf("%v %s", err, resp.GetBundle())
		}
		_, err = cav1.NewCertificateServiceClient(conn).Renew(w.ctx, &cav1.RenewRequest{})
		if !errs.Is(err, errs.Denied) {
			t.Errorf("renewal without a certificate: %v", err)
		}
	})
}
