// Package cluster makes the cluster that lives in a folder, or finds it there again.
//
// It owns the folder's own record of which cluster it has, and the operator's first identity. It must never overwrite a
// cluster, and never remove what it has not made. Its functions keep nothing; one at a time may work on a folder.
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	"github.com/shoalproject/shoal/services/ca"

	"github.com/shoalproject/shoal/allinone/internal/parts"
)

const (
	recordFile     = "cluster.json" // written last: a folder that has it has a whole cluster
	operatorFolder = "operator"
	directoryFile  = "directory.json"
)

// Cluster is what a folder has.
type Cluster struct {
	// ID is the cluster's, Machine this machine's.
	ID      string `json:"cluster"`
	Machine string `json:"machine"`
	// Made says that it was made just now.
	Made bool `json:"-"`
}

// Operator is the folder of the identity that the operator begins with.
func Operator(at parts.Place) string { return path.Join(at.Root, operatorFolder) }

// Find reads which cluster a folder has. NotFound: none.
func Find(files run.Files, at parts.Place) (Cluster, error) {
	name := path.Join(at.Root, recordFile)
	data, err := files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Cluster{}, errs.New(errs.NotFound, "there is no cluster in %s", at.Root)
	}
	if err != nil {
		return Cluster{}, errs.New(errs.Unavailable, "read %s: %w", name, err)
	}
	var c Cluster
	if err := json.Unmarshal(data, &c); err != nil || c.ID == "" || c.Machine == "" {
		return Cluster{}, errs.New(errs.Invalid, "%s does not name a cluster (%v); name another folder with --data", name, err)
	}
	return c, nil
}

// Open makes the cluster, with the person as its operator, or finds it and tells its processes where they are now.
func Open(env run.Env, at parts.Place, operator string) (Cluster, error) {
	found, err := Find(env.Files, at)
	switch {
	case err == nil:
		return found, move(env.Files, at, found.Machine)
	case !errs.Is(err, errs.NotFound):
		return Cluster{}, err
	}
	if names, err := env.Files.List(at.Folder()); err != nil || len(names) > 0 {
		return Cluster{}, errs.New(errs.Precondition, "%s has the beginning of a cluster that was never finished; remove that folder, or name another one with --data", at.Folder())
	}
	return begin(env, at, operator)
}

func begin(env run.Env, at parts.Place, operator string) (Cluster, error) {
	cfg := ca.DefaultBootstrapConfig()
	cfg.Root, cfg.Advertise, cfg.Operator = at.Root, []string{at.Address}, operator
	made, err := ca.Bootstrap(cfg, env)
	if err != nil {
		return Cluster{}, fmt.Errorf("make the cluster's keys and certificates: %w", err)
	}
	c := Cluster{ID: made.ClusterID, Machine: made.MachineID, Made: true}
	key, err := identity.DecodeKey([]byte(made.OperatorKey))
	if err == nil {
		err = identity.Write(env.Files, Operator(at), []byte(made.OperatorCert), []byte(made.Bundle), key)
	}
	if err != nil {
		return Cluster{}, errs.New(errs.Unavailable, "keep the operator's identity: %w", err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		return Cluster{}, err
	}
	if err := env.Files.Write(path.Join(at.Root, recordFile), append(data, '\n'), 0o644); err != nil {
		return Cluster{}, errs.New(errs.Unavailable, "finish the cluster's folder: %w", err)
	}
	return c, nil
}

// move tells each process where the others of this machine are now: the address may be another one than the last time, and
// nobody else could tell them.
func move(files run.Files, at parts.Place, machine string) error {
	for _, role := range parts.Roles() {
		name := path.Join(at.Data(role), directoryFile)
		known, err := directory.New(files, name)
		if err != nil {
			return err
		}
		list := known.All()
		list.Entries = slices.DeleteFunc(list.Entries, func(e *cav1.DirectoryEntry) bool { return e.GetMachineId() == machine })
		for _, other := range parts.Roles() {
			if parts.Port(other) != 0 {
				list.Entries = append(list.Entries, &cav1.DirectoryEntry{Role: other, MachineId: machine, Addresses: []string{at.At(other)}})
			}
		}
		if err := directory.Write(files, name, list); err != nil {
			return errs.New(errs.Unavailable, "write %s: %w", name, err)
		}
	}
	return nil
}

// Remove deletes the folder's cluster. What else is in the folder stays.
func Remove(at parts.Place) error {
	// The record goes last: what is left half-way is still known to be ours.
	for _, name := range []string{at.Folder(), path.Join(at.Root, operatorFolder), path.Join(at.Root, recordFile)} {
		if err := os.RemoveAll(name); err != nil {
			return errs.New(errs.Unavailable, "remove %s: %w", name, err)
		}
	}
	for dir := path.Dir(at.Folder()); len(dir) >= len(at.Root) && dir != "/"; dir = path.Dir(dir) {
		if os.Remove(dir) != nil {
			break // it has something of somebody else's
		}
	}
	return nil
}
