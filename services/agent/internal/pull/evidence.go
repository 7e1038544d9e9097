package pull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/status"

	"github.com/shoalproject/shoal/services/agent/internal/pull/verdict"
)

// maxDetail bounds what is shown of a registry's own words.
const maxDetail = 200

// evidence says why a try failed; nil: not for a reason of the registry's, nor of what it sent.
func (m *meter) evidence(cause, err error) *verdict.Evidence {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := status.FromError(err); ok {
		err = errgrpc.ToNative(err)
	}
	e := &verdict.Evidence{Login: m.login, Stall: m.stall, Code: m.last.code, RetryAfter: m.last.after}
	helper, isHelper := errors.AsType[*helperError](err)
	unexpected, isStatus := errors.AsType[remoteerrors.ErrUnexpectedStatus](err)
	switch {
	case errors.Is(cause, errStalled):
		e.Fault = verdict.Stalled
	case errors.Is(cause, errSlow):
		e.Fault, e.Detail = verdict.Stalled, fmt.Sprintf("less than %d bytes a second", leastRate)
	case isHelper:
		e.Fault, e.Detail = verdict.Helper, helper.Error()
	case isStatus:
		e.Fault, e.Code, e.Detail = verdict.Status, unexpected.StatusCode, saidIn(unexpected.Body)
	case errors.Is(err, docker.ErrInvalidAuthorization):
		e.Fault, e.Code = verdict.Status, http.StatusUnauthorized
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), "no space left on device"): // containerd tells it as text alone
		e.Fault = verdict.Full
	case errdefs.IsFailedPrecondition(err), errdefs.IsDataLoss(err):
		e.Fault = verdict.Corrupt
	case m.last.code >= http.StatusBadRequest:
		e.Fault = verdict.Status
	case errdefs.IsUnavailable(err):
		return nil
	case unreachable(err):
		e.Fault, e.Detail = verdict.Unreachable, bounded(reason(err))
	case errdefs.IsNotFound(err): // the registry has it, for others
		e.Fault = verdict.Foreign
	default:
		e.Detail = bounded(err.Error())
	}
	return e
}

// unreachable says whether there was no connection, or none that can be trusted, or it broke.
func unreachable(err error) bool {
	_, isURL := errors.AsType[*url.Error](err)
	_, isOp := errors.AsType[*net.OpError](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, isTLS := errors.AsType[*tls.CertificateVerificationError](err)
	_, isCA := errors.AsType[x509.UnknownAuthorityError](err)
	return isURL || isOp || isDNS || isTLS || isCA || strings.Contains(err.Error(), "unexpected EOF")
}

// reason is the inner error: an address that a request was for may carry a token.
func reason(err error) string {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}

// saidIn is the first message in a registry's answer, in the form of the distribution spec.
func saidIn(body []byte) string {
	var said struct {
		Errors []struct {
			Code, Message string
		}
	}
	if json.Unmarshal(body, &said) != nil || len(said.Errors) == 0 {
		return ""
	}
	if said.Errors[0].Message == "" {
		return bounded(strings.ToLower(said.Errors[0].Code))
	}
	return bounded(said.Errors[0].Message)
}

func bounded(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxDetail {
		return strings.ToValidUTF8(text[:maxDetail], "") + "…"
	}
	return text
}

// discard drops what has come of a try, so that the next one begins anew.
func (p *Puller) discard(ctx context.Context, m *meter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, part := range m.bytes {
		if err := p.client.ContentStore().Abort(ctx, remotes.MakeRefKey(ctx, part.desc)); err != nil && !errdefs.IsNotFound(err) {
			p.log.Debug("a download was not dropped", "digest", part.desc.Digest.String(), "error", err)
		}
	}
}
