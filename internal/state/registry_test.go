package state_test

import (
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestRegistryOf: an image has the login whose name is most of its own, part by part and never across hosts.
func TestRegistryOf(t *testing.T) {
	txn := state.Empty().Begin()
	for id, name := range map[string]string{
		"host": "r.example:5000", "team": "r.example:5000/team", "repo": "r.example:5000/team/web", "hub": "docker.io", "mine": "docker.io/library/mine",
	} {
		txn.Put(state.Wrap(&typesv1.Registry{
			Meta: &typesv1.Meta{Id: id}, Annotations: &typesv1.Annotations{Name: name}, Versions: []*typesv1.DataVersion{{Number: 4}},
		}))
	}
	snap := txn.Commit(state.Version{Revision: 1}, time.Time{})
	for image, want := range map[string]string{
		"r.example:5000/app:1":                   "host.4",
		"r.example:5000/teams/app":               "host.4",
		"r.example:5000/team/app:1":              "team.4",
		"r.example:5000/team/web@sha256:aa":      "repo.4",
		"r.example:5000/team/web:1@sha256:aa":    "repo.4",
		"r.example:5000/team/website":            "team.4",
		"r.example:5000/team/web/deep/er":        "repo.4",
		"r.example/app":                          "",
		"localhost/app":                          "",
		"nginx":                                  "hub.4",
		"nginx:1@sha256:aa":                      "hub.4",
		"mine:2":                                 "mine.4",
		"docker.io/mine":                         "mine.4",
		"index.docker.io/library/mine":           "mine.4",
		"team/web":                               "hub.4",
		"r.example:5001/team/web":                "",
		"evil.example/r.example:5000/team/web:1": "",
		"":                                       "hub.4",
	} {
		if got := snap.LoginID(image); got != want {
			t.Errorf("%q: login %q, want %q", image, got, want)
		}
	}
}
