package state

import (
	"strings"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// DefaultRegistry is where images are whose name has no host.
const DefaultRegistry = "docker.io"

// Repository is an image's full name, without tag and digest: `nginx` is at `docker.io/library/nginx`. The grammar is that
// of distribution/reference: the first part is a host if it has a dot or a port, or is localhost.
func Repository(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if colon := strings.LastIndex(name, ":"); colon > strings.LastIndex(name, "/") {
		name = name[:colon]
	}
	host, path, found := strings.Cut(name, "/")
	switch {
	case !found:
		return DefaultRegistry + "/library/" + name
	case !strings.ContainsAny(host, ".:") && host != "localhost" && host == strings.ToLower(host):
		return DefaultRegistry + "/" + name
	case host == "index."+DefaultRegistry:
		host = DefaultRegistry
	}
	if host == DefaultRegistry && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return host + "/" + path
}

// RegistryOf is the registry to log in to for an image: the one whose name is most of the image's. Nil: there is none.
func (v *view) RegistryOf(image string) *typesv1.Registry {
	for name := Repository(image); name != ""; {
		if key, ok := v.ClaimHolder(NameClaim(typesv1.Kind_KIND_REGISTRY, name)); ok {
			return v.Registry(key.ID)
		}
		name = name[:max(0, strings.LastIndex(name, "/"))]
	}
	return nil
}

// LoginID is the id of the payload with the login for an image, empty if there is none.
func (v *view) LoginID(image string) string {
	r := v.RegistryOf(image)
	if len(r.GetVersions()) == 0 {
		return ""
	}
	return PayloadID(r.GetMeta().GetId(), r.GetVersions()[0].GetNumber())
}
