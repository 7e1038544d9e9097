package enroll

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	tokenPrefix = "SHOAL-1-"
	digestChars = 50 // of base36: the shortest that holds 256 bits
	secretChars = 25 // of base36: the shortest that holds 128 bits
)

// Token is a join token: which root to believe, and the secret that lets a machine in.
type Token struct {
	// Digest is the root certificate's, as RootDigest makes it.
	Digest string
	// Secret is 128 random bits in base36.
	Secret string
}

// NewToken makes a token with a new secret for the root (DER).
func NewToken(r *run.Rand, root []byte) Token {
	return Token{Digest: RootDigest(root), Secret: identity.NewID(r)}
}

// RootDigest is the SHA-256 of a certificate in DER, in 50 characters of base36.
func RootDigest(der []byte) string {
	sum := sha256.Sum256(der)
	return identity.Base36(sum[:], digestChars)
}

// String is the token as people paste it. It is a secret: never log it.
func (t Token) String() string { return tokenPrefix + t.Digest + "-" + t.Secret }

// Matches says that the root (DER) is the one that the token pins.
func (t Token) Matches(root []byte) bool {
	return subtle.ConstantTimeCompare([]byte(RootDigest(root)), []byte(t.Digest)) == 1
}

// ParseToken reads a token. Blanks around it are forgiven; all else is told without repeating the secret.
func ParseToken(s string) (Token, error) {
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	switch {
	case s == "":
		return Token{}, malformed("it is empty")
	case strings.HasPrefix(s, "SWMTKN-"):
		return Token{}, malformed("it is Docker Swarm's")
	case !ok && strings.HasPrefix(s, "SHOAL-"):
		return Token{}, malformed("it is of another version than SHOAL-1")
	case !ok:
		return Token{}, malformed("it does not begin with " + tokenPrefix)
	}
	digest, secret, ok := strings.Cut(rest, "-")
	switch {
	case !ok || len(digest) != digestChars || len(secret) != secretChars:
		return Token{}, malformed("it is not whole: copy it from SHOAL-1- to its last character")
	case !base36(digest) || !base36(secret):
		return Token{}, malformed("it has characters that no token has")
	}
	return Token{Digest: digest, Secret: secret}, nil
}

func malformed(why string) error {
	return errs.New(errs.Invalid, "join token: %s; `shoal join-token worker` on a manager prints the one in force", why)
}

func base36(s string) bool {
	return strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
