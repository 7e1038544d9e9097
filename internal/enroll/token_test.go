package enroll_test

import (
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/run"
)

func TestATokenSurvivesItsText(t *testing.T) {
	token := enroll.NewToken(run.NewRand(1), []byte("root"))
	got, err := enroll.ParseToken("  " + token.String() + "\n")
	if err != nil || got != token {
		t.Fatal(got, err)
	}
	if len(token.Digest) != 50 || len(token.Secret) != 25 || !strings.HasPrefix(token.String(), "SHOAL-1-") {
		t.Errorf("%q", token.String())
	}
	if !token.Matches([]byte("root")) || token.Matches([]byte("another")) {
		t.Error("the digest does not pin the root")
	}
}

func TestMalformedTokensAreToldWithoutTheSecret(t *testing.T) {
	token := enroll.NewToken(run.NewRand(1), []byte("root"))
	for _, s := range []string{
		"", "x", "SWMTKN-1-abc-def", "SHOAL-2" + token.String()[7:], token.String()[:60], token.String() + "x", token.String() + "-x",
		strings.ToUpper(token.String()), "SHOAL-1-" + token.Digest + token.Secret, "SHOAL-1-" + token.Secret + "-" + token.Digest,
		"SHOAL-1-" + token.Digest + "-" + strings.Repeat("_", 25),
	} {
		_, err := enroll.ParseToken(s)
		if !errs.Is(err, errs.Invalid) || strings.Contains(err.Error(), token.Secret) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
