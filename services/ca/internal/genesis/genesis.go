// Package genesis begins a cluster: all first keys and certificates, and the store's first transaction, offline in one step.
//
// It owns what is written where on the first machine. The root's private key and the keyset key exist in clear only in its
// memory: what leaves it is sealed or wrapped. It must never use a network, and never overwrite anything of an earlier
// cluster. Its functions keep nothing.
package genesis

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/keyset"
	"github.com/shoalproject/shoal/internal/run"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/renewissuer"
	"github.com/shoalproject/shoal/services/ca/internal/root"
)

// Plan is what the first machine shall be.
type Plan struct {
	// Folder is shoal's on this machine.
	Folder string
	// Machine is its id.
	Machine  string
	Hostname string
	// Roles are its processes; Addresses where they listen (host:port), Hosts the machine's addresses without a port.
	Roles     []authzv1.Role
	Addresses map[authzv1.Role][]string
	Hosts     []string
	// Operator is the first person's name.
	Operator string
	// Ranges of the data path.
	MachineNetwork, MachineNetwork6, NetworkPool string
	DataPathPort                                 uint32
}

// Made is what came of it, beside the files.
type Made struct {
	Cluster                   string
	OperatorCert, OperatorKey []byte
	Bundle                    []byte
	Worker, Manager           enroll.Token
	Directory                 *cav1.Directory
	Written                   []string
}

// FirstTransaction is where the first store finds its first transaction, in shoal's folder.
const FirstTransaction = "store/first-transaction.pb"

// Free refuses a machine on which something of a cluster is left.
func Free(files run.Files, folder string) error {
	var found []string
	for _, r := range issue.Roles(typesv1.NodeRole_NODE_ROLE_MANAGER) {
		found = append(found, path.Join(folder, identity.RoleName(r), "identity"))
	}
	found = append(found, path.Join(folder, "ca/issuing"), path.Join(folder, FirstTransaction), path.Join(folder, "store/raft"))
	found = slices.DeleteFunc(found, func(name string) bool {
		if names, err := files.List(name); err == nil {
			return len(names) == 0
		}
		_, err := files.Stat(name) // a file, which cannot be listed
		return err != nil
	})
	if len(found) == 0 {
		return nil
	}
	return errs.New(errs.Exists, "bootstrap: this machine has files of a cluster already: %s; run `shoal leave` on it, or, if nothing of that cluster is needed any more, stop shoal and remove %s",
		strings.Join(found, ", "), folder)
}

// genesis is the work under way.
type genesis struct {
	env     run.Env
	plan    Plan
	cluster string
	top     *root.Signer
	keys    *keyset.Keyset
	issuer  *issue.Issuer
	members map[authzv1.Role]*typesv1.Member
	issued  []issue.Issued
	written []string
}

// Make does it. On an error it takes back what it has written.
func Make(env run.Env, plan Plan) (Made, error) {
	g := &genesis{env: env, plan: plan, cluster: identity.NewID(env.Rand), issuer: issue.New(run.Env{
		Log: env.Log, Now: env.Now, Rand: env.Rand, // its metrics are nobody's
	}), members: map[authzv1.Role]*typesv1.Member{}}
	made, err := g.make()
	if err != nil {
		return Made{}, errors.Join(err, g.undo())
	}
	return made, nil
}

func (g *genesis) make() (Made, error) {
	// Step 1: the root, the keyset, and this CA's issuing certificate. The root's key does not leave this function but
	// sealed.
	var err error
	if g.top, err = root.New(g.env.Rand, g.cluster, g.env.Now()); err != nil {
		return Made{}, err
	}
	g.keys = keyset.New(g.env.Rand, g.cluster)
	issuing, err := g.top.Issuing(g.env.Rand, g.plan.Machine, g.env.Now())
	if err != nil {
		return Made{}, err
	}
	g.issuer.Use(issuing)
	dir := path.Join(g.plan.Folder, "ca/issuing")
	g.note(path.Join(dir, "key.pem"), path.Join(dir, "cert.pem"), path.Join(dir, "key.pem.next"))
	if err := renewissuer.Write(g.env.Files, dir, issuing); err != nil {
		return Made{}, errs.New(errs.Unavailable, "bootstrap: write %s: %w", dir, err)
	}
	// Step 2: every process's certificate and seed.
	for _, role := range g.plan.Roles {
		if err := g.process(role); err != nil {
			return Made{}, err
		}
	}
	// Step 3: the operator, signed by the root: a person's certificate outlives an issuing one.
	made := Made{Cluster: g.cluster, Bundle: g.top.PEM(), Directory: g.directory()}
	if made.OperatorCert, made.OperatorKey, err = g.operator(); err != nil {
		return Made{}, err
	}
	// Step 4: the store's first transaction, last: without it the store does not start, and nothing else is of any use.
	tx, err := g.transaction(&made)
	if err != nil {
		return Made{}, err
	}
	data, err := proto.Marshal(tx)
	if err != nil {
		return Made{}, errs.New(errs.Internal, "bootstrap: encode the first transaction: %w", err)
	}
	if err := g.write(path.Join(g.plan.Folder, FirstTransaction), data, 0o600); err != nil {
		return Made{}, err
	}
	for _, name := range g.written {
		if _, err := g.env.Files.Stat(name); err == nil { // some are only there between two steps
			made.Written = append(made.Written, name)
		}
	}
	return made, nil
}

// process makes one process's identity folder, directory seed and wrap key.
func (g *genesis) process(role authzv1.Role) error {
	folder := path.Join(g.plan.Folder, identity.RoleName(role))
	key, err := identity.NewKey(g.env.Rand)
	if err != nil {
		return errs.New(errs.Internal, "bootstrap: make a key: %w", err)
	}
	csr, err := identity.CSR(g.env.Rand, key)
	if err != nil {
		return errs.New(errs.Internal, "bootstrap: make a request: %w", err)
	}
	id := identity.ID{Cluster: g.cluster, Role: role, Name: g.plan.Machine}
	issued, err := g.issuer.Issue(root.Leaf{
		ID: id, CSR: csr, Life: issue.DefaultLife, Hosts: issue.HostsOf(role, g.plan.Addresses[role], g.plan.Hostname),
	}, nil)
	if err != nil {
		return err
	}
	g.issued = append(g.issued, issued)
	dir := path.Join(folder, "identity")
	g.note(path.Join(dir, identity.BundleFile), path.Join(dir, identity.CertFile), path.Join(dir, identity.KeyFile))
	if err := identity.Write(g.env.Files, dir, issued.Chain, g.top.PEM(), key); err != nil {
		return errs.New(errs.Unavailable, "bootstrap: write %s: %w", dir, err)
	}
	seed := path.Join(folder, "directory.json")
	g.note(seed)
	if err := directory.Write(g.env.Files, seed, g.directory()); err != nil {
		return errs.New(errs.Unavailable, "bootstrap: write %s: %w", seed, err)
	}
	if !issue.IsService(role) {
		return nil
	}
	var wrapKey []byte
	if issue.HoldsWrapKey(role) {
		name := path.Join(folder, "wrap.key")
		private, err := identity.WrapKey(g.env.Files, name, g.env.Rand)
		if err != nil {
			return errs.New(errs.Unavailable, "bootstrap: write %s: %w", name, err)
		}
		g.note(name)
		wrapKey = private.PublicKey().Bytes()
	}
	g.members[role] = issue.NewMember(id, g.plan.Hostname, g.plan.Addresses[role], run.Version(), wrapKey)
	return nil
}

// operator makes the first person's certificate and key.
func (g *genesis) operator() (cert, key []byte, err error) {
	private, err := identity.NewKey(g.env.Rand)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "bootstrap: make a key: %w", err)
	}
	csr, err := identity.CSR(g.env.Rand, private)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "bootstrap: make a request: %w", err)
	}
	id := identity.ID{Cluster: g.cluster, Role: authzv1.Role_ROLE_OPERATOR, Name: g.plan.Operator}
	issued, err := g.issuer.Issue(root.Leaf{ID: id, CSR: csr, Life: issue.PersonLife},
		func() (*root.Signer, error) { return g.top, nil })
	if err != nil {
		return nil, nil, err
	}
	g.issued = append(g.issued, issued)
	key, err = identity.EncodeKey(private)
	return issued.Chain, key, err
}

// directory is who is where: the control processes of this machine.
func (g *genesis) directory() *cav1.Directory {
	out := &cav1.Directory{}
	for _, role := range g.plan.Roles {
		if len(g.plan.Addresses[role]) == 0 {
			continue
		}
		out.Entries = append(out.Entries, &cav1.DirectoryEntry{
			Role: role, MachineId: g.plan.Machine, Addresses: g.plan.Addresses[role], Weight: issue.DefaultWeight,
		})
	}
	return out
}

func (g *genesis) write(name string, data []byte, mode fs.FileMode) error {
	g.note(name)
	if err := g.env.Files.Write(name, data, mode); err != nil {
		return errs.New(errs.Unavailable, "bootstrap: write %s: %w", name, err)
	}
	return nil
}

// note remembers what is about to be written.
func (g *genesis) note(names ...string) { g.written = append(g.written, names...) }

// undo removes what was written, the newest first, and folders that are empty then.
func (g *genesis) undo() error {
	var faults []error
	for _, name := range slices.Backward(g.written) {
		faults = append(faults, g.env.Files.Remove(name))
		for dir := path.Dir(name); strings.HasPrefix(dir, g.plan.Folder+"/"); dir = path.Dir(dir) {
			if names, err := g.env.Files.List(dir); err != nil || len(names) > 0 || g.env.Files.Remove(dir) != nil {
				break
			}
		}
	}
	return errors.Join(faults...)
}
