package enroll

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	cav1 "github.com/shoalproject/shoal/proto/shoal/ca/v1"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/run"
)

const (
	fetchLimit = 5 * time.Second
	joinRetry  = time.Second
	joinLimit  = 20 * time.Second // the CA writes to the store, which may be choosing a leader
)

// found is the CA that has shown the pinned root.
type found struct {
	address string
	root    *x509.Certificate
	now     time.Time // its clock: told in errors, never believed
}

// findRoot asks the addresses in turn for the root that the token pins.
func findRoot(ctx context.Context, env run.Env, token Token, addresses []string) (found, error) {
	var faults []error
	for _, addr := range addresses {
		f, err := fetchRoot(ctx, env, token, addr)
		if err == nil {
			return f, nil
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(faults) == 1 {
		return found{}, faults[0]
	}
	return found{}, errs.New(errs.KindOf(faults[len(faults)-1]), "join: none of the addresses could be used: %w", errors.Join(faults...))
}

func fetchRoot(ctx context.Context, env run.Env, token Token, addr string) (found, error) {
	conn, err := rpc.DialTLS(env, addr, identity.BlindTLS(env, "h2"))
	if err != nil {
		return found{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	resp, err := cav1.NewCertificateServiceClient(conn).GetRoot(ctx, &cav1.GetRootRequest{})
	if err != nil {
		return found{}, deadAddress(addr, err)
	}
	roots, err := identity.DecodeCertificates(resp.GetBundle())
	if err != nil {
		return found{}, errs.New(errs.Denied, "join: what %s sent is no root certificate (%w); is it a manager's address?", addr, err)
	}
	for _, root := range roots {
		if token.Matches(root.Raw) {
			return found{address: addr, root: root, now: resp.GetNow().AsTime()}, nil
		}
	}
	return found{}, errs.New(errs.Denied, "join: the root certificate of %s is not the one in the token; the token is of another cluster, or of before a root rotation, or somebody is in between", addr)
}

// deadAddress tells which address, and what to look at.
func deadAddress(addr string, err error) error {
	switch errs.KindOf(err) {
	case errs.Unavailable:
	case errs.Internal: // no CA would say that it does not know the call
		return errs.New(errs.Precondition, "join: what answers at %s is no CA (%w); a manager's CA listens on TCP port 2377", addr, err)
	default:
		return fmt.Errorf("join: ask %s for the root certificate: %w", addr, err)
	}
	return errs.New(errs.Unavailable, "join: no CA answers at %s: %w; check the address, that shoal-ca runs there, and that no firewall keeps TCP port 2377 closed", addr, err)
}

// call asks for all certificates in one go, over a connection that is verified against the pinned root. While the CA can
// not answer (its store chooses a leader, say) it is asked again: the keys are the same, so it knows the request again.
func call(ctx context.Context, env run.Env, token Token, f found, req Request, wants []want) (*cav1.JoinResponse, error) {
	config, verdict := watched(identity.PinnedTLS(env, f.root, "h2", authzv1.Role_ROLE_CA))
	conn, err := rpc.DialTLS(env, f.address, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	msg := &cav1.JoinRequest{
		Token: token.String(), MachineId: req.MachineID, Hostname: req.Hostname, Addresses: req.Advertise,
		Version: run.Version(), Now: timestamppb.New(env.Now()), Availability: req.Availability,
	}
	for _, w := range wants {
		msg.Requests = append(msg.Requests, w.request)
	}
	for {
		resp, err := cav1.NewCertificateServiceClient(conn).Join(ctx, msg)
		switch {
		case err == nil:
			return resp, nil
		case verdict() != nil:
			return nil, errs.New(errs.Denied, "join: the CA at %s cannot be believed: %w", f.address, verdict())
		case errs.KindOf(err) != errs.Unavailable:
			return nil, fmt.Errorf("join: the CA at %s refused: %w", f.address, err)
		}
		if run.Sleep(ctx, joinRetry) != nil {
			return nil, errs.New(errs.Unavailable, "join: the CA at %s did not answer within %s: %w; run join again, it goes on from here", f.address, joinLimit, err)
		}
	}
}

// watched keeps what our own verification says: gRPC wraps it into words.
func watched(config *tls.Config) (*tls.Config, func() error) {
	var mu sync.Mutex // guards said
	var said error
	verify := config.VerifyConnection
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		err := verify(cs)
		mu.Lock()
		defer mu.Unlock()
		said = err
		return err
	}
	return config, func() error {
		mu.Lock()
		defer mu.Unlock()
		return said
	}
}
