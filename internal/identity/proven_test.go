package identity

import (
	"crypto/x509"
	"testing"
	"time"
)

// What is remembered of a chain holds while all its certificates are valid, its root too; for that usage, and for exactly what the
// peer sent.
func TestAProofHoldsForThatChainWhileItIsValid(t *testing.T) {
	now := time.Unix(1_900_000_000, 0)
	cert := func(raw string, from, to time.Duration) *x509.Certificate {
		return &x509.Certificate{Raw: []byte(raw), NotBefore: now.Add(from), NotAfter: now.Add(to)}
	}
	leaf, issuer, root := cert("leaf", -time.Hour, 5*time.Hour), cert("issuer", -3*time.Hour, 9*time.Hour), cert("root", -2*time.Hour, 4*time.Hour)
	k := newProven()
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	p := proofOf(client, []*x509.Certificate{leaf, issuer})
	if k.holds(p, now) {
		t.Error("what nobody has proven holds")
	}
	k.note(p, []*x509.Certificate{leaf, issuer, root})
	for at, want := range map[time.Duration]bool{
		-time.Hour - time.Second: false, -time.Hour: true, 0: true, 4 * time.Hour: true, 4*time.Hour + time.Second: false,
	} {
		if got := k.holds(p, now.Add(at)); got != want {
			t.Errorf("%s from now: %t", at, got)
		}
	}
	for name, other := range map[string]proof{
		"another usage":  proofOf(server, []*x509.Certificate{leaf, issuer}),
		"another leaf":   proofOf(client, []*x509.Certificate{cert("leaf2", 0, 0), issuer}),
		"another issuer": proofOf(client, []*x509.Certificate{leaf, cert("issuer2", 0, 0)}),
		"no issuer":      proofOf(client, []*x509.Certificate{leaf}),
		"cut elsewhere":  proofOf(client, []*x509.Certificate{cert("leafi", 0, 0), cert("ssuer", 0, 0)}),
	} {
		if k.holds(other, now) {
			t.Errorf("%s is taken for proven", name)
		}
	}
	for i := range 10 * maxProven {
		k.note(proofOf(x509.ExtKeyUsage(100+i), nil), []*x509.Certificate{leaf})
	}
	if len(k.of) > maxProven {
		t.Errorf("%d are remembered, at most %d", len(k.of), maxProven)
	}
}
