package enroll

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io/fs"
	"path"
	"slices"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/directory"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/run"
)

// want is one certificate that is asked for.
type want struct {
	role    authzv1.Role
	key     *ecdsa.PrivateKey
	request *cav1.CertificateRequest
}

// disk remembers what a join has written, and what was there before, so that it can be taken back.
type disk struct {
	files run.Files
	root  string
	keys  []string          // files with new keys, which were not there before
	certs map[string][]byte // identity files as they were before; nil: absent
	order []string          // of certs
}

func (d *disk) folder(role authzv1.Role) string { return path.Join(d.root, identity.RoleName(role)) }

func (d *disk) identity(role authzv1.Role) string { return path.Join(d.folder(role), "identity") }

// prepare makes keys and requests. A key of an earlier try is taken again.
func prepare(env run.Env, d *disk, token Token, roles []authzv1.Role) ([]want, error) {
	var wants []want
	for _, role := range roles {
		w, err := prepareRole(env, d, token, role)
		if err != nil {
			return nil, err
		}
		wants = append(wants, w)
	}
	return wants, nil
}

func prepareRole(env run.Env, d *disk, token Token, role authzv1.Role) (want, error) {
	dir := d.identity(role)
	if err := d.sameCluster(token, dir); err != nil {
		return want{}, err
	}
	next := path.Join(dir, identity.NextKeyFile)
	d.noteKey(next)
	key, err := identity.NextKey(env.Files, dir, env.Rand)
	if err != nil {
		return want{}, errs.New(errs.Unavailable, "join: write %s: %w", next, err)
	}
	csr, err := identity.CSR(env.Rand, key)
	if err != nil {
		return want{}, err
	}
	w := want{role: role, key: key, request: &cav1.CertificateRequest{Role: role, Csr: csr}}
	if w.request.Proof, w.request.Vouchers, err = d.proofs(env.Rand, role, csr); err != nil {
		return want{}, err
	}
	if role == authzv1.Role_ROLE_CA || role == authzv1.Role_ROLE_STORE {
		name := path.Join(d.folder(role), "wrap.key")
		d.noteKey(name)
		wrap, err := identity.WrapKey(env.Files, name, env.Rand)
		if err != nil {
			return want{}, err
		}
		w.request.WrapKey = wrap.PublicKey().Bytes()
	}
	return w, nil
}

// sameCluster refuses a machine that is a member of another cluster: its certificates would be overwritten.
func (d *disk) sameCluster(token Token, dir string) error {
	name := path.Join(dir, identity.BundleFile)
	data, err := d.files.Read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Unavailable, "read %s: %w", name, err)
	}
	roots, err := identity.DecodeCertificates(data)
	// An unreadable bundle is of no use to anybody, so it may be replaced.
	if err != nil || slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return token.Matches(c.Raw) }) {
		return nil //nolint:nilerr // see above
	}
	return errs.New(errs.Precondition, "join: this machine has certificates of another cluster in %s; run `shoal leave` first", dir)
}

// proofs signs the request with the key last certified for this identity, if this machine has one, and with those of its
// other processes: one of them vouches for a role that the machine has not had, or that was removed.
func (d *disk) proofs(r *run.Rand, role authzv1.Role, csr []byte) (own []byte, vouchers [][]byte, err error) {
	if own, err = d.sign(r, d.identity(role), csr); err != nil {
		return nil, nil, err
	}
	for _, dir := range d.others(role) {
		signed, err := d.sign(r, dir, csr)
		if err != nil {
			return nil, nil, err
		}
		if signed != nil {
			vouchers = append(vouchers, signed)
		}
	}
	return own, vouchers, nil
}

// sign is nil where there is no key that could sign; the CA says that a proof is missing, if one is.
func (d *disk) sign(r *run.Rand, dir string, csr []byte) ([]byte, error) {
	name := path.Join(dir, identity.KeyFile)
	data, err := identity.ReadSecret(d.files, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // the first join, or one whose certificate never arrived
	case errs.Is(err, errs.Invalid):
		return nil, err
	case err != nil:
		return nil, errs.New(errs.Unavailable, "read %s: %w", name, err)
	}
	key, err := identity.DecodeKey(data)
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	sum := sha256.Sum256(csr)
	return ecdsa.SignASN1(r, key, sum[:])
}

// others are the identity folders of the machine's other processes, in the order of their names.
func (d *disk) others(role authzv1.Role) []string {
	names, err := d.files.List(d.root)
	if err != nil {
		return nil // then there is nobody who could vouch
	}
	var out []string
	for _, n := range names {
		if other, err := identity.ParseRole(n); err == nil && other != role {
			out = append(out, d.identity(other))
		}
	}
	return out
}

func (d *disk) noteKey(name string) {
	if _, err := d.files.Stat(name); errors.Is(err, fs.ErrNotExist) {
		d.keys = append(d.keys, name)
	}
}

// store writes the identity folders and directory seeds of an answer that has been looked at whole.
func store(env run.Env, d *disk, resp *cav1.JoinResponse, wants []want, req Request) error {
	chains, err := match(resp, wants, req.MachineID)
	if err != nil {
		return err
	}
	for i, w := range wants {
		dir := d.identity(w.role)
		seed := path.Join(d.folder(w.role), "directory.json")
		for _, name := range []string{identity.BundleFile, identity.CertFile, identity.KeyFile} {
			d.keep(path.Join(dir, name))
		}
		d.keep(seed)
		if err := directory.Write(env.Files, seed, resp.GetDirectory()); err != nil {
			return errs.New(errs.Unavailable, "join: write %s: %w", seed, err)
		}
		if err := identity.Write(env.Files, dir, chains[i], resp.GetBundle(), w.key); err != nil {
			return errs.New(errs.Unavailable, "join: write the certificate of %s: %w", identity.RoleName(w.role), err)
		}
	}
	return nil
}

// match finds each role's chain and checks that it is for our key and name, before anything is written.
func match(resp *cav1.JoinResponse, wants []want, machine string) ([][]byte, error) {
	var out [][]byte
	for _, w := range wants {
		id := identity.ID{Cluster: resp.GetClusterId(), Role: w.role, Name: machine}
		var chain []byte
		for _, c := range resp.GetCertificates() {
			if c.GetRole() == w.role {
				chain = c.GetChain()
			}
		}
		if err := identity.CheckChain(chain, w.key, id); err != nil {
			return nil, errs.New(errs.Invalid, "join: the CA's answer for %s is of no use: %w", identity.RoleName(w.role), err)
		}
		out = append(out, chain)
	}
	if _, err := identity.DecodeCertificates(resp.GetBundle()); err != nil {
		return nil, errs.New(errs.Invalid, "join: the CA's trust bundle is of no use: %w", err)
	}
	return out, nil
}

// keep remembers a file's present content.
func (d *disk) keep(name string) {
	if d.certs == nil {
		d.certs = map[string][]byte{}
	}
	data, err := d.files.Read(name)
	if err != nil {
		data = nil
	}
	d.certs[name] = data
	d.order = append(d.order, name)
}

// refused takes back what a call that failed leaves no use for. If the CA said no, everything; if there was no answer,
// nothing: it may have certified these keys, and then only they can prove a second try.
func (d *disk) refused(err error) error {
	if errs.KindOf(err) == errs.Unavailable {
		return nil
	}
	return d.undo()
}

// undoCertificates puts the identity files back as they were. The keys stay, as next ones: the CA has certified them.
func (d *disk) undoCertificates(wants []want) error {
	var faults []error
	for _, w := range wants {
		data, err := identity.EncodeKey(w.key)
		if err == nil {
			err = d.files.Write(path.Join(d.identity(w.role), identity.NextKeyFile), data, 0o600)
		}
		faults = append(faults, err)
	}
	for _, name := range d.order {
		var err error
		if old := d.certs[name]; old == nil {
			err = d.files.Remove(name)
		} else {
			mode := fs.FileMode(0o644)
			if path.Base(name) == identity.KeyFile {
				mode = 0o600
			}
			err = d.files.Write(name, old, mode)
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// undo removes the new keys, and their folders if nothing else is in them.
func (d *disk) undo() error {
	var faults []error
	for _, name := range d.keys {
		faults = append(faults, d.files.Remove(name))
		for dir := path.Dir(name); dir != d.root && len(dir) > len(d.root); dir = path.Dir(dir) {
			if names, err := d.files.List(dir); err != nil || len(names) > 0 || d.files.Remove(dir) != nil {
				break
			}
		}
	}
	return errors.Join(faults...)
}
