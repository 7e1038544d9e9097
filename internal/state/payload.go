package state

import (
	"strconv"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// PayloadID is the id of one version of the data of a secret or config, or of the login of a registry.
func PayloadID(owner string, number uint64) string {
	return owner + "." + strconv.FormatUint(number, 10)
}

// FilesOf lists what a container needs of secrets and configs, secrets first.
func FilesOf(c *typesv1.ContainerSpec) []*typesv1.FileReference {
	out := make([]*typesv1.FileReference, 0, len(c.GetSecrets())+len(c.GetConfigs()))
	return append(append(out, c.GetSecrets()...), c.GetConfigs()...)
}
