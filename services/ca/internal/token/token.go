// Package token makes and checks join tokens.
//
// A token's secret is derived from the keyset key, its role and a counter; the store keeps the counter and a keyed hash. So
// any CA can show the token in force, and who reads the store or a backup can neither show one nor guess it offline. It must
// never print a secret, and never compare one in a time that depends on it. Its functions keep nothing.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// secretSize is 128 bits, in secretChars characters of base36.
const (
	secretSize  = 16
	secretChars = 25
)

// New makes the record of the token with this counter.
func New(k *keyset.Keyset, role typesv1.NodeRole, counter uint64, now time.Time) (*typesv1.JoinToken, error) {
	s, err := secret(k, role, counter)
	if err != nil {
		return nil, err
	}
	sum, err := hash(k, s)
	if err != nil {
		return nil, err
	}
	return &typesv1.JoinToken{Counter: counter, Hash: sum, IssuedAt: timestamppb.New(now)}, nil
}

// Show is the token in force as people paste it, for the root (DER).
func Show(k *keyset.Keyset, role typesv1.NodeRole, tokens *typesv1.JoinTokens, root []byte) (enroll.Token, error) {
	record := Of(tokens, role)
	if record == nil {
		return enroll.Token{}, errs.New(errs.Invalid, "there is a join token for workers and one for managers, and none for %s", role)
	}
	s, err := secret(k, role, record.GetCounter())
	if err != nil {
		return enroll.Token{}, err
	}
	return enroll.Token{Digest: enroll.RootDigest(root), Secret: s}, nil
}

// Check says what machine a secret lets in. Both tokens are always compared, so that the time tells nothing.
func Check(k *keyset.Keyset, tokens *typesv1.JoinTokens, secret string) (typesv1.NodeRole, bool, error) {
	sum, err := hash(k, secret)
	if err != nil {
		return 0, false, err
	}
	worker := subtle.ConstantTimeCompare(sum, tokens.GetWorker().GetHash())
	manager := subtle.ConstantTimeCompare(sum, tokens.GetManager().GetHash())
	switch {
	case manager == 1:
		return typesv1.NodeRole_NODE_ROLE_MANAGER, true, nil
	case worker == 1:
		return typesv1.NodeRole_NODE_ROLE_WORKER, true, nil
	}
	return 0, false, nil
}

// Of is the record of a role's token; nil when there is none.
func Of(tokens *typesv1.JoinTokens, role typesv1.NodeRole) *typesv1.JoinToken {
	switch role {
	case typesv1.NodeRole_NODE_ROLE_WORKER:
		return tokens.GetWorker()
	case typesv1.NodeRole_NODE_ROLE_MANAGER:
		return tokens.GetManager()
	case typesv1.NodeRole_NODE_ROLE_UNSPECIFIED:
	}
	return nil
}

func secret(k *keyset.Keyset, role typesv1.NodeRole, counter uint64) (string, error) {
	b, err := k.Derive(fmt.Sprintf("join token %d %d", role, counter), secretSize)
	if err != nil {
		return "", err
	}
	return identity.Base36(b, secretChars), nil
}

func hash(k *keyset.Keyset, secret string) ([]byte, error) {
	key, err := k.Derive("join token hash", sha256.Size)
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(secret))
	return m.Sum(nil), nil
}
