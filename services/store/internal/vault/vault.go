// Package vault makes the transactions of secrets and configs, and of registries' logins: data in versions, under a name.
//
// It owns which version is in force, which services a new one rolls, and which old ones go. It must never look into the data,
// nor put it into an error or a log. A Vault does not change and is safe for concurrent use.
package vault

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/shoalproject/shoal/internal/errs"
	"github.com/shoalproject/shoal/internal/rpc"
	"github.com/shoalproject/shoal/internal/state"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/store/internal/admit"
	"github.com/shoalproject/shoal/services/store/internal/desk"
	"github.com/shoalproject/shoal/services/store/internal/listing"
)

// Held is what secrets, configs and registries have in common: a name, and data in versions.
type Held interface {
	proto.Message
	GetMeta() *typesv1.Meta
	GetAnnotations() *typesv1.Annotations
	GetVersions() []*typesv1.DataVersion
}

// Vault says how they differ, and where their transactions go.
type Vault[T Held] struct {
	Kind    typesv1.Kind
	Most    int // bytes of data
	Get     func(s *state.Snapshot, id string) (T, bool)
	All     func(s *state.Snapshot) iter.Seq[T]
	Build   func(m *typesv1.Meta, a *typesv1.Annotations, v []*typesv1.DataVersion, template bool) T
	Payload func(id string, data []byte) (*typesv1.Payload, error)
	Refs    func(c *typesv1.ContainerSpec) []*typesv1.FileReference
	// Fields are those that Build sets beside annotations, versions and template. Yield are those in whose place Set puts one of
	// this name. Both may be nil.
	Fields []string
	Yield  func(s *state.Snapshot, name string) []T

	Office
}

// Office is what makes and applies transactions.
type Office struct {
	Admits *desk.Admission
	NewID  func() string
	// Read is the state with all that was acknowledged; Now is what this store has.
	Read func(ctx context.Context) (*state.Snapshot, error)
	Now  func() *state.Snapshot
}

// Find takes an id, a name or a unique prefix of the id.
func (v Vault[T]) Find(s *state.Snapshot, ref string) (T, error) {
	if key, ok := s.ClaimHolder(state.NameClaim(v.Kind, ref)); ok {
		ref = key.ID
	}
	if o, ok := v.Get(s, ref); ok {
		return o, nil
	}
	return desk.ByPrefix(state.KindName(v.Kind), ref, v.All(s))
}

// Change is what a request for a secret or config asks for.
type Change struct {
	Ref         string
	Version     *typesv1.Version
	Annotations *typesv1.Annotations
	Data        []byte
	Template    bool // of a new one
}

// Create commits a new one and returns it.
func (v Vault[T]) Create(ctx context.Context, caller rpc.Caller, requestID string, c Change) (T, error) {
	out, err := v.Admits.Commit(ctx, caller, requestID, func(d *desk.Desk) (*storev1.Transaction, error) {
		return v.createTx(d, c)
	})
	return v.after(out, err)
}

func (v Vault[T]) createTx(d *desk.Desk, c Change) (*storev1.Transaction, error) {
	what := fmt.Sprintf("create %s %q", state.KindName(v.Kind), c.Annotations.GetName())
	if err := admit.Data(d.Snap, v.Kind, c.Annotations, c.Data, c.Template, v.Most).Err(what); err != nil {
		return nil, err
	}
	id := v.NewID()
	first, err := v.dataPut(id, 1, c.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	made, fields := v.Build(&typesv1.Meta{Id: id}, c.Annotations, []*typesv1.DataVersion{{Number: 1, Bytes: uint64(len(c.Data))}}, c.Template), []string{"annotations", "versions"}
	fields = append(fields, v.Fields...)
	if c.Template {
		fields = append(fields, "template")
	}
	return &storev1.Transaction{Puts: []*storev1.Put{desk.Create(state.Wrap(made), fields...), first}}, nil
}

// templated says whether the data has placeholders; a registry's login never has.
func templated(o proto.Message) bool {
	t, ok := o.(interface{ GetTemplate() bool })
	return ok && t.GetTemplate()
}

// Set commits data under a name, whether there was some before or not, and returns what is kept.
func (v Vault[T]) Set(ctx context.Context, caller rpc.Caller, requestID string, c Change) (T, error) {
	out, err := v.Admits.Commit(ctx, caller, requestID, func(d *desk.Desk) (*storev1.Transaction, error) {
		tx, err := v.setTx(d, c)
		if err != nil || v.Yield == nil {
			return tx, err
		}
		for _, o := range v.Yield(d.Snap, c.Annotations.GetName()) {
			tx.Deletes = append(tx.Deletes, v.deletes(o)...)
		}
		return tx, nil
	})
	return v.after(out, err)
}

func (v Vault[T]) setTx(d *desk.Desk, c Change) (*storev1.Transaction, error) {
	key, ok := d.Snap.ClaimHolder(state.NameClaim(v.Kind, c.Annotations.GetName()))
	if !ok {
		return v.createTx(d, c)
	}
	old, _ := v.Get(d.Snap, key.ID)
	if len(c.Annotations.GetLabels()) == 0 {
		c.Annotations = nil // those that it has stay
	}
	tx, _, err := v.updateTx(d, old, c)
	return tx, err
}

// deletes removes one with the data of all versions.
func (v Vault[T]) deletes(o T) []*storev1.Delete {
	out := []*storev1.Delete{{Kind: v.Kind, Id: o.GetMeta().GetId()}}
	for _, had := range o.GetVersions() {
		out = append(out, &storev1.Delete{Kind: typesv1.Kind_KIND_PAYLOAD, Id: state.PayloadID(o.GetMeta().GetId(), had.GetNumber())})
	}
	return out
}

func (v Vault[T]) after(out *storev1.Outcome, err error) (T, error) {
	var none T
	if err != nil {
		return none, err
	}
	o, ok := v.Get(v.Now(), out.GetSubject().GetId())
	if !ok {
		return none, errs.New(errs.NotFound, "the %s was made and has been removed since", state.KindName(v.Kind))
	}
	return o, nil
}

// dataPut makes the payload of one version.
func (v Vault[T]) dataPut(owner string, number uint64, data []byte) (*storev1.Put, error) {
	id := state.PayloadID(owner, number)
	p, err := v.Payload(id, data)
	if err != nil {
		return nil, err
	}
	p.Meta = &typesv1.Meta{Id: id}
	field := "clear"
	switch {
	case p.GetSealed() != nil:
		field = "sealed"
	case p.GetLogin() != nil:
		field = "login"
	}
	return desk.Create(state.Wrap(p), field), nil
}

// Update commits new labels or data and returns the outcome, and the services that it rolls.
func (v Vault[T]) Update(ctx context.Context, caller rpc.Caller, requestID string, c Change) (T, []string, error) {
	var rolled []string
	out, err := v.Admits.Commit(ctx, caller, requestID, func(d *desk.Desk) (*storev1.Transaction, error) {
		old, err := v.Find(d.Snap, c.Ref)
		if err != nil {
			return nil, err
		}
		tx, names, err := v.updateTx(d, old, c)
		rolled = names
		return tx, err
	})
	o, err := v.after(out, err)
	return o, rolled, err
}

func (v Vault[T]) updateTx(d *desk.Desk, old T, c Change) (*storev1.Transaction, []string, error) {
	what := fmt.Sprintf("update %s %q", state.KindName(v.Kind), old.GetAnnotations().GetName())
	if c.Version == nil {
		c.Version = desk.VersionOf(d.Snap, old.GetMeta())
	}
	if err := desk.CheckVersion(d.Snap, what, c.Version, old.GetMeta()); err != nil {
		return nil, nil, err
	}
	if err := admit.NewData(old.GetAnnotations(), c.Annotations, c.Data, templated(old), v.Most).Err(what); err != nil {
		return nil, nil, err
	}
	id, annotations, versions := old.GetMeta().GetId(), proto.CloneOf(old.GetAnnotations()), old.GetVersions()
	if c.Annotations != nil {
		annotations.Labels = c.Annotations.GetLabels()
	}
	tx := &storev1.Transaction{Preconditions: desk.Unchanged(state.Key{Kind: v.Kind, ID: id}, c.Version)}
	if c.Data == nil {
		tx.Puts = []*storev1.Put{desk.Put(state.Wrap(v.Build(old.GetMeta(), annotations, versions, templated(old))), "annotations")}
		return tx, nil, nil
	}
	number := versions[0].GetNumber() + 1
	next, err := v.dataPut(id, number, c.Data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	services, err := v.roll(d, what, id, number)
	if err != nil {
		return nil, nil, err
	}
	used, rolled := v.used(d.Snap, id, services)
	versions = append([]*typesv1.DataVersion{{Number: number, Bytes: uint64(len(c.Data))}}, versions...)
	versions = slices.DeleteFunc(versions, func(had *typesv1.DataVersion) bool {
		gone := had.GetNumber() != number && !used[had.GetNumber()]
		if gone {
			tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: typesv1.Kind_KIND_PAYLOAD, Id: state.PayloadID(id, had.GetNumber())})
		}
		return gone
	})
	if len(versions) > admit.MaxDataVersions {
		return nil, nil, errs.New(errs.Exhausted, "%s: %d versions of it are in use or in the history of services, which is the most; update those services first",
			what, admit.MaxDataVersions)
	}
	made, fields := state.Wrap(v.Build(old.GetMeta(), annotations, versions, templated(old))), append([]string{"annotations", "versions"}, v.Fields...)
	tx.Puts = []*storev1.Put{desk.Put(made, fields...), next}
	for _, svc := range services {
		key := state.Key{Kind: typesv1.Kind_KIND_SERVICE, ID: svc.GetMeta().GetId()}
		tx.Preconditions = append(tx.Preconditions, desk.Unchanged(key, desk.VersionOf(d.Snap, svc.GetMeta()))...)
		tx.Puts = append(tx.Puts, desk.PutService(svc))
	}
	return tx, rolled, nil
}

// roll makes the next spec version of every service that uses the data and has not pinned its version.
func (v Vault[T]) roll(d *desk.Desk, what, id string, number uint64) ([]*typesv1.Service, error) {
	var out []*typesv1.Service
	for _, user := range d.Snap.ReferencedBy(state.Key{Kind: v.Kind, ID: id}) {
		old := d.Snap.Service(user.ID)
		if old == nil {
			continue // the data itself
		}
		svc, changed := proto.CloneOf(old), false
		for _, r := range v.Refs(svc.GetSpec().GetTask().GetContainer()) {
			if r.GetId() == id && !r.GetPinned() {
				r.Version, changed = number, true
			}
		}
		if !changed {
			continue
		}
		if err := desk.Revise(d, what, svc, old); err != nil {
			return nil, err
		}
		out = append(out, svc)
	}
	return out, nil
}

// used are the versions that a service, as it will be, or a spec that it keeps, refers to; and the names of those that change.
func (v Vault[T]) used(s *state.Snapshot, id string, changed []*typesv1.Service) (used map[uint64]bool, names []string) {
	used, next := map[uint64]bool{}, map[string]*typesv1.Service{}
	for _, svc := range changed {
		next[svc.GetMeta().GetId()] = svc
		names = append(names, svc.GetSpec().GetAnnotations().GetName())
	}
	for svc := range s.Services() {
		if n := next[svc.GetMeta().GetId()]; n != nil {
			svc = n
		}
		for _, t := range specsOf(svc) {
			for _, r := range v.Refs(t.GetContainer()) {
				if r.GetId() == id {
					used[r.GetVersion()] = true
				}
			}
		}
	}
	return used, names
}

// specsOf are the task specs of a service, the present one first.
func specsOf(svc *typesv1.Service) []*typesv1.TaskSpec {
	out := []*typesv1.TaskSpec{svc.GetSpec().GetTask()}
	for _, r := range svc.GetSpecHistory() {
		out = append(out, r.GetTask())
	}
	return out
}

// Remove commits the removal, with the data of all versions, and returns the id.
func (v Vault[T]) Remove(ctx context.Context, caller rpc.Caller, ref string) (string, error) {
	id := ""
	_, err := v.Admits.Commit(ctx, caller, v.NewID(), func(d *desk.Desk) (*storev1.Transaction, error) {
		o, err := v.Find(d.Snap, ref)
		if err != nil {
			return nil, err
		}
		id = o.GetMeta().GetId()
		if err := v.inUse(d.Snap, o); err != nil {
			return nil, err
		}
		return &storev1.Transaction{Deletes: v.deletes(o)}, nil
	})
	return id, err
}

// inUse names who uses it: all services that do, or a task of an earlier version that has not stopped yet.
func (v Vault[T]) inUse(s *state.Snapshot, o T) error {
	name, id := o.GetAnnotations().GetName(), o.GetMeta().GetId()
	var users []string
	for _, u := range s.ReferencedBy(state.Key{Kind: v.Kind, ID: id}) {
		if svc := s.Service(u.ID); svc != nil {
			users = append(users, svc.GetSpec().GetAnnotations().GetName())
		}
	}
	if len(users) > 0 {
		slices.Sort(users)
		return errs.New(errs.Precondition, "%s %s is in use by service %s", state.KindName(v.Kind), name, list(users))
	}
	for t := range s.Tasks() {
		spec := state.SpecOf(s.Service(t.GetServiceId()), t.GetSpecVersion())
		if !state.Terminal(t.GetObserved().GetState()) && slices.ContainsFunc(v.Refs(spec.GetContainer()), func(r *typesv1.FileReference) bool { return r.GetId() == id }) {
			return errs.New(errs.Precondition, "%s %s is in use by task %s, which has not stopped yet", state.KindName(v.Kind), name, t.GetMeta().GetId())
		}
	}
	return nil
}

func list(names []string) string {
	out := ""
	for i, n := range names {
		switch {
		case i == 0:
		case i == len(names)-1:
			out += " and "
		default:
			out += ", "
		}
		out += n
	}
	return out
}

// Page lists them by name.
func (v Vault[T]) Page(ctx context.Context, filters []string, size int32, token string) (rows []T, next string, err error) {
	what := "list " + state.KindName(v.Kind) + "s"
	f, err := listing.Parse(what, filters, "id", "name", "label")
	if err != nil {
		return nil, "", err
	}
	snap, err := v.Read(ctx)
	if err != nil {
		return nil, "", err
	}
	var all []listing.Row[T]
	for o := range v.All(snap) {
		n := o.GetAnnotations()
		if f.Prefix("id", o.GetMeta().GetId()) && f.Prefix("name", n.GetName()) && f.Label("label", n.GetLabels()) {
			all = append(all, listing.Row[T]{Key: n.GetName() + listing.Sep + o.GetMeta().GetId(), Value: o})
		}
	}
	return listing.Page(what, all, size, token, listing.SizeOf)
}
