package admit

import (
	"regexp"
	"strings"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// MaxLogin is the size of a registry's login, in bytes: tokens of some clouds have 4 KiB.
const MaxLogin = 32 << 10

const maxRegistryName = 255

// registryName checks what a login is for: a host, and perhaps the beginning of a path, as images are named.
func (f *Faults) registryName(name string) {
	host, _, _ := strings.Cut(name, "/")
	grammar := regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$|^\[[0-9a-f:]+\](:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*$`)
	switch {
	case len(name) > maxRegistryName || !grammar.MatchString(name):
		f.Add("name", "%q is no registry: give a host, as registry.example:5000, and perhaps the beginning of a path after it", name)
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		f.Add("name", "%q begins with no host: give one, as %s/%s", name, state.DefaultRegistry, name)
	}
}

// Login checks what a registry is to hear.
func Login(l *typesv1.RegistryLogin) error {
	var c errs.Collector
	token := l.GetIdentityToken() != ""
	c.Check(token || l.GetUsername() != "", "login.username", "is missing; a token in its place is login.identity_token")
	c.Check(token || l.GetPassword() != "", "login.password", "is missing; a token in its place is login.identity_token")
	c.Check(!token || l.GetPassword() == "", "login.password", "cannot be given together with login.identity_token")
	c.Check(!strings.Contains(l.GetUsername(), ":"), "login.username", "has a colon, which registries take for its end")
	return c.Err("keep a registry's login")
}
