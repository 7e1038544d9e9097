// Package enroll is how a machine gets its first certificates: the client's side of `shoal join`.
//
// Nothing is trusted on first use. The root is fetched over a connection that proves nothing, and believed only if it has
// the digest that the token pins; everything else goes over a second connection that is verified against that root.
// Keys are on disk before the CA is asked, so that a join whose answer was lost proves itself when it is tried again.
//
// It must never start anything, and never leave a machine half-joined. Its functions keep no state; two joins at once on
// one machine are the caller's to prevent.
package enroll

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// DefaultRoot is where the processes of a machine have their folders.
const DefaultRoot = "/var/lib/shoal"

// machineIDFile is in the root folder. It outlives a failed join, a leave and a second join.
const machineIDFile = "machine-id"

// maxSkew is how far this machine's clock may be from the CA's: certificates count from the CA's present.
const maxSkew = 5 * time.Minute

// Request is one join.
type Request struct {
	// Token as pasted.
	Token string
	// Addresses of CAs, as host:port; tried in turn.
	Addresses []string
	// MachineID is this machine's; empty: the one on disk, or a new one.
	MachineID string
	// Hostname is told to the cluster; empty: env's.
	Hostname string
	// Advertise are the addresses of this machine, without a port.
	Advertise []string
	// Roles are what to ask certificates for. A worker token allows agent and meshproxy alone.
	Roles []authzv1.Role
	// Availability is whether a machine that is new takes tasks from the beginning; zero: it does.
	Availability typesv1.Availability
	// Root is where the folders go; empty: DefaultRoot.
	Root string
}

// Result is a join that is done: identity folders and directory seeds are on disk.
type Result struct {
	// Cluster is its id.
	Cluster string
	// MachineID is this machine's.
	MachineID string
	// Directory is who is where.
	Directory *cav1.Directory
}

// MachineID reads this machine's id in the root folder, and makes one if there is none.
func MachineID(env run.Env, root string) (string, error) {
	name := path.Join(root, machineIDFile)
	data, err := env.Files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		id := identity.NewID(env.Rand)
		return id, env.Files.Write(name, []byte(id+"\n"), 0o644)
	}
	if err != nil {
		return "", errs.New(errs.Unavailable, "read %s: %w", name, err)
	}
	id := strings.TrimSpace(string(data))
	if len(id) != len(identity.NewID(env.Rand)) || !base36(id) {
		return "", errs.New(errs.Invalid, "%s does not hold a machine id; remove it if this machine has not joined", name)
	}
	return id, nil
}

// Join makes this machine a member, or refuses and leaves nothing behind but the machine id (and, if the CA may have
// certified them without our hearing of it, the new keys). A second join of the same machine to the same cluster gets
// fresh certificates. Errors: Invalid (the request), Denied (token), Exists (the machine id is another machine's),
// Precondition (clock, or joined elsewhere), Unavailable (nobody answered).
func Join(ctx context.Context, env run.Env, req Request) (Result, error) {
	token, err := req.validate(env)
	if err != nil {
		return Result{}, err
	}
	// Step 1: the root, by the token's digest.
	found, err := findRoot(ctx, env, token, req.Addresses)
	if err != nil {
		return Result{}, err
	}
	if err := checkClock(env.Now(), found.now, found.address); err != nil {
		return Result{}, err
	}
	// Step 2: who this machine is; the id stays whatever comes.
	if req.MachineID == "" {
		if req.MachineID, err = MachineID(env, req.Root); err != nil {
			return Result{}, err
		}
	} else if err := keepMachineID(env, req.Root, req.MachineID); err != nil {
		return Result{}, err
	}
	// Step 3: keys on disk, before anybody can certify them.
	d := &disk{files: env.Files, root: req.Root}
	wants, err := prepare(env, d, token, req.Roles)
	if err != nil {
		return Result{}, errors.Join(err, d.undo())
	}
	// Step 4: the one call.
	resp, err := call(ctx, env, token, found, req, wants)
	if err != nil {
		return Result{}, errors.Join(err, d.refused(err))
	}
	// Step 5: all folders, or none.
	if err := store(env, d, resp, wants, req); err != nil {
		return Result{}, errors.Join(err, d.undoCertificates(wants))
	}
	return Result{Cluster: resp.GetClusterId(), MachineID: req.MachineID, Directory: resp.GetDirectory()}, nil
}

// validate fills the defaults and finds all faults at once.
func (r *Request) validate(env run.Env) (Token, error) {
	if r.Root == "" {
		r.Root = DefaultRoot
	}
	if r.Hostname == "" {
		r.Hostname = env.Host
	}
	var c errs.Collector
	token, err := ParseToken(r.Token)
	c.Merge("", err)
	c.Check(len(r.Addresses) > 0, "addresses", "name the address of a manager, as host:port")
	c.Check(len(r.Advertise) > 0, "advertise", "name at least one address of this machine")
	c.Check(len(r.Roles) > 0, "roles", "name at least one role")
	c.Check(len(slices.Compact(slices.Sorted(slices.Values(r.Roles)))) == len(r.Roles), "roles", "one is named twice")
	for _, role := range r.Roles {
		_, err := identity.ParseRole(identity.RoleName(role))
		c.Check(err == nil && !identity.IsPerson(role), "roles", "%s is not a process's", identity.RoleName(role))
	}
	c.Check(r.MachineID == "" || len(r.MachineID) == secretChars && base36(r.MachineID), "machine_id", "%q is not %d characters of base36", r.MachineID, secretChars)
	return token, c.Err("join")
}

func keepMachineID(env run.Env, root, id string) error {
	name := path.Join(root, machineIDFile)
	if data, err := env.Files.Read(name); err == nil && strings.TrimSpace(string(data)) == id {
		return nil
	}
	return env.Files.Write(name, []byte(id+"\n"), 0o644)
}

func checkClock(own, theirs time.Time, address string) error {
	if d := own.Sub(theirs).Abs(); d > maxSkew {
		return errs.New(errs.Precondition, "join: this machine's clock says %s and that of the CA at %s says %s, which is %s apart (at most %s is accepted); set the clock right, with NTP best",
			stamp(own), address, stamp(theirs), d.Round(time.Second), maxSkew)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
