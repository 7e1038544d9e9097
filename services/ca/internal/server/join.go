package server

import (
	"context"
	"slices"
	"time"

	"github.com/shoalproject/shoal/internal/enroll"
	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/ca/internal/issue"
	"github.com/shoalproject/shoal/services/ca/internal/token"
)

// Join makes the first certificates of a machine.
func (s *Server) Join(ctx context.Context, req *cav1.JoinRequest) (*cav1.JoinResponse, error) {
	resp, err := s.join(ctx, req)
	if err != nil {
		// The fields of a request are a stranger's: quoted and bounded.
		s.Issuer.AuditRefused(ctx, "Join", err, "machine", clip(req.GetMachineId()), "hostname", clip(req.GetHostname()), "from", addressOf(ctx))
	}
	return resp, err
}

func (s *Server) join(ctx context.Context, req *cav1.JoinRequest) (*cav1.JoinResponse, error) {
	// Step 1: the limit, before anything that costs.
	if !s.joins.Allow(addressOf(ctx), s.Env.Now()) {
		return nil, errs.New(errs.Exhausted, "join: too many tries from this address, at most %d a second; wait a moment and try again", s.JoinRate)
	}
	// Step 2: the token. Who has none learns nothing else.
	given, err := enroll.ParseToken(req.GetToken())
	if err != nil {
		return nil, errs.New(errs.Denied, "join: %s", err.Error())
	}
	if _, err := s.admits(given); err != nil {
		return nil, err
	}
	// Step 3: the request itself, all faults at once, and the clock.
	if err := validate(req); err != nil {
		return nil, err
	}
	if err := s.checkClock(req.GetNow().AsTime()); err != nil {
		return nil, err
	}
	// Step 4: decide, sign, commit; again if the world changed meanwhile, token included.
	var done joining
	version, err := s.decide(ctx, "join", func(snap *state.Snapshot) (*storev1.Transaction, error) {
		kind, err := s.admits(given)
		if err != nil {
			return nil, err
		}
		done = joining{server: s, snap: snap, req: req, kind: kind}
		return done.transaction()
	})
	if err != nil {
		return nil, err
	}
	// Step 5: the certificates leave.
	resp := &cav1.JoinResponse{ClusterId: done.cluster().GetMeta().GetId(), Bundle: done.cluster().GetAuthority().GetBundle()}
	for _, c := range done.issued {
		s.Issuer.AuditIssued(ctx, "join", c, "hostname", clip(req.GetHostname()), "from", addressOf(ctx), "again", !done.fresh)
		resp.Certificates = append(resp.Certificates, &cav1.IssuedCertificate{Role: c.ID.Role, Chain: c.Chain})
	}
	resp.Directory = s.directory(ctx, version)
	return resp, nil
}

// admits says what machine the token in hand lets in, by what the replica shows now.
func (s *Server) admits(given enroll.Token) (typesv1.NodeRole, error) {
	snap, err := s.snapshot()
	if err != nil {
		return 0, err
	}
	k, err := s.keys()
	if err != nil {
		return 0, err
	}
	roots, err := identity.DecodeCertificates(snap.Cluster().GetAuthority().GetBundle())
	if err != nil {
		return 0, errs.New(errs.Internal, "the cluster's trust bundle: %w", err)
	}
	pinned := false
	for _, r := range roots {
		pinned = pinned || given.Matches(r.Raw)
	}
	kind, ok, err := token.Check(k, snap.Cluster().GetTokens(), given.Secret)
	switch {
	case err != nil:
		return 0, err
	case !pinned:
		return 0, errs.New(errs.Denied, "join: the token is of another cluster; `shoal join-token worker` on a manager of this one prints the right one")
	case !ok:
		return 0, errs.New(errs.Denied, "join: the token is wrong, or was rotated away; `shoal join-token worker` (or manager) on a manager prints the one in force")
	}
	return kind, nil
}

func (s *Server) checkClock(theirs time.Time) error {
	own := s.Env.Now()
	if d := own.Sub(theirs).Abs(); d > maxSkew {
		return errs.New(errs.Precondition, "join: the joining machine's clock says %s and this CA's says %s, which is %s apart (at most %s is accepted); set the clocks right, with NTP best",
			stamp(theirs), stamp(own), d.Round(time.Second), maxSkew)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

const (
	idChars    = 25
	maxHosts   = 16
	maxName    = 253
	maxVersion = 128
)

// validate finds all faults of a request, the token apart.
func validate(req *cav1.JoinRequest) error {
	var c errs.Collector
	c.Check(validID(req.GetMachineId()), "machine_id", "is not %d characters of base36", idChars)
	c.Check(req.GetHostname() != "" && len(req.GetHostname()) <= maxName && printable(req.GetHostname()), "hostname",
		"is not 1 to %d printable characters", maxName)
	c.Check(len(req.GetAddresses()) > 0 && len(req.GetAddresses()) <= maxHosts, "addresses", "are %d, wanted 1 to %d", len(req.GetAddresses()), maxHosts)
	for _, a := range req.GetAddresses() {
		c.Check(validAddress(a), "addresses", "%q is not an IP address or a host name that others can dial", clip(a))
	}
	c.Check(len(req.GetVersion()) <= maxVersion && printable(req.GetVersion()), "version", "is not up to %d printable characters", maxVersion)
	c.Check(req.GetNow() != nil && req.GetNow().CheckValid() == nil, "now", "is missing: the joining machine's clock")
	c.Check(len(req.GetRequests()) > 0, "requests", "ask for at least one role")
	seen := map[authzv1.Role]bool{}
	for i, r := range req.GetRequests() {
		validateOne(&c, i, r, seen[r.GetRole()])
		seen[r.GetRole()] = true
	}
	return c.Err("join")
}

// joining is one decision of a join, from one snapshot.
type joining struct {
	server *Server
	snap   *state.Snapshot
	req    *cav1.JoinRequest
	kind   typesv1.NodeRole

	fresh  bool // the machine is new to the cluster
	issued []issue.Issued
}

func (j *joining) cluster() *typesv1.Cluster { return j.snap.Cluster() }

func (j *joining) id(role authzv1.Role) identity.ID {
	return identity.ID{Cluster: j.cluster().GetMeta().GetId(), Role: role, Name: j.req.GetMachineId()}
}

// allowed checks the roles against the token's kind.
func (j *joining) allowed() error {
	may := issue.Roles(j.kind)
	for _, r := range j.req.GetRequests() {
		if !slices.Contains(may, r.GetRole()) {
			return errs.New(errs.Denied, "join: this token lets in workers, and role %s is a manager's; `shoal join-token manager` on a manager prints the token for that",
				identity.RoleName(r.GetRole()))
		}
	}
	return nil
}
