package fsm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalproject/shoal/internal/identity"
	"github.com/shoalproject/shoal/internal/state"
	authzv1 "github.com/shoalproject/shoal/proto/shoal/authz/v1"
	storev1 "github.com/shoalproject/shoal/proto/shoal/store/v1"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// start is the cluster time of the first transaction of a script.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// TestRules runs the scripts: one file a rule.
//
//	begin                        first transaction, in the same form as tx
//	tx <role>/<name> [id=] [at=] one transaction; its lines are
//	    create|put <kind> <id> <field,...> <textproto>
//	    delete <kind> <id> · unchanged <kind> <id> <revision> · fence <lease> <number> <holder>
//	    session <node> <number> <dispatcher> · epoch <number> <nonce>
//	show <kind> <id>             an object without its times
//	reopen                       through an image and back
func TestRules(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{t: t, m: New(writers(t))}
		datadriven.RunTest(t, path, s.run)
	})
}

type script struct {
	t   *testing.T
	m   *Machine
	ids int
}

func writers(t *testing.T) Writers {
	t.Helper()
	w, err := ReadWriters()
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "begin":
		return outcome(s.m.Begin(&typesv1.Epoch{Number: 1, Nonce: 7}, s.tx(d)))
	case "tx":
		return outcome(s.m.Apply(&storev1.LogEntry{Transactions: []*storev1.Transaction{s.tx(d)}})[0].Outcome)
	case "show":
		return s.show(d)
	case "reopen":
		m, _, err := Restore(writers(t), s.m.Image().Parts(Group{}))
		if err != nil {
			return err.Error()
		}
		s.m = m
		return fmt.Sprintf("at revision %d", m.Snapshot().Version().Revision)
	}
	d.Fatalf(t, "unknown command %s", d.Cmd)
	return ""
}

func outcome(o *storev1.Outcome) string {
	if o.GetRefusal() == 0 {
		return fmt.Sprintf("applied as revision %d", o.GetVersion().GetRevision())
	}
	return fmt.Sprintf("%s: %s", strings.TrimPrefix(o.GetRefusal().String(), "REFUSAL_REASON_"), o.GetMessage())
}

func (s *script) tx(d *datadriven.TestData) *storev1.Transaction {
	s.ids++
	tx := &storev1.Transaction{RequestId: fmt.Sprintf("request-%d", s.ids), ClusterTime: timestamppb.New(start)}
	for i, a := range d.CmdArgs {
		switch {
		case i == 0 && d.Cmd == "tx":
			role, name, _ := strings.Cut(a.Key, "/")
			r, err := identity.ParseRole(role)
			if err != nil {
				d.Fatalf(s.t, "%v", err)
			}
			tx.Caller = &storev1.Caller{Role: r, Name: name}
		case a.Key == "id":
			tx.RequestId = a.Vals[0]
		case a.Key == "at":
			after, err := time.ParseDuration(a.Vals[0])
			if err != nil {
				d.Fatalf(s.t, "%v", err)
			}
			tx.ClusterTime = timestamppb.New(start.Add(after))
		}
	}
	for line := range strings.Lines(d.Input) {
		s.line(d, tx, strings.TrimSpace(line))
	}
	return tx
}

func (s *script) line(d *datadriven.TestData, tx *storev1.Transaction, line string) {
	w := strings.SplitN(line, " ", 5)
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(w[i], 10, 64)
		if err != nil {
			d.Fatalf(s.t, "%s: %v", line, err)
		}
		return n
	}
	pre := func(p *storev1.Precondition) { tx.Preconditions = append(tx.Preconditions, p) }
	switch w[0] {
	case "create", "put":
		text := ""
		if len(w) == 5 {
			text = w[4]
		}
		fields := strings.Split(w[3], ",")
		tx.Puts = append(tx.Puts, &storev1.Put{Object: object(s.t, w[1], w[2], text), Fields: fields, Create: w[0] == "create"})
	case "delete":
		tx.Deletes = append(tx.Deletes, &storev1.Delete{Kind: kind(w[1]), Id: w[2]})
	case "unchanged":
		pre(&storev1.Precondition{Condition: &storev1.Precondition_Unchanged{
			Unchanged: &storev1.Unchanged{Kind: kind(w[1]), Id: w[2], Revision: number(3)},
		}})
	case "fence":
		pre(&storev1.Precondition{Condition: &storev1.Precondition_Fence{
			Fence: &storev1.Fence{Lease: w[1], Number: number(2), Holder: w[3]},
		}})
	case "session":
		pre(&storev1.Precondition{Condition: &storev1.Precondition_Session{
			Session: &storev1.SessionFence{NodeId: w[1], Number: number(2), DispatcherId: w[3]},
		}})
	case "epoch":
		pre(&storev1.Precondition{Condition: &storev1.Precondition_Epoch{Epoch: &typesv1.Epoch{Number: number(1), Nonce: number(2)}}})
	default:
		d.Fatalf(s.t, "unknown line %q", line)
	}
}

func kind(name string) typesv1.Kind {
	for _, k := range state.Kinds() {
		if state.KindName(k) == name {
			return k
		}
	}
	return typesv1.Kind_KIND_UNSPECIFIED
}

func object(t *testing.T, kindName, id, text string) *typesv1.Object {
	t.Helper()
	o := &typesv1.Object{}
	if err := prototext.Unmarshal(fmt.Appendf(nil, "%s { meta { id: %q } %s }", kindName, id, text), o); err != nil {
		t.Fatalf("%s %s: %v", kindName, id, err)
	}
	return o
}

func (s *script) show(d *datadriven.TestData) string {
	key := state.Key{Kind: kind(d.CmdArgs[0].Key), ID: d.CmdArgs[1].Key}
	o := s.m.Snapshot().Get(key)
	if o == nil {
		return "not there"
	}
	o = proto.CloneOf(o)
	m := state.MetaOf(o)
	m.CreatedAt, m.UpdatedAt = nil, nil
	raw, err := protojson.Marshal(o)
	if err != nil {
		return err.Error()
	}
	var out bytes.Buffer
	if err := json.Compact(&out, raw); err != nil {
		return err.Error()
	}
	return out.String()
}

// TestEveryFieldHasAWriter: no field of an object can be forgotten, and none is anybody's.
func TestEveryFieldHasAWriter(t *testing.T) {
	w := writers(t)
	for _, k := range state.Kinds() {
		fields := (&typesv1.Object{}).ProtoReflect().Descriptor().Fields().ByNumber(protoNumber(k)).Message().Fields()
		for i := range fields.Len() {
			name := string(fields.Get(i).Name())
			if name == "meta" {
				continue
			}
			allowed := 0
			for role := range authzv1.Role_name {
				if w.Allows(k, name, authzv1.Role(role), true) {
					allowed++
				}
			}
			if allowed > 5 {
				t.Errorf("%s.%s has %d writers", state.KindName(k), name, allowed)
			}
			if w.Allows(k, name, authzv1.Role_ROLE_VIEWER, true) || w.Allows(k, name, authzv1.Role_ROLE_ANONYMOUS, true) ||
				w.Allows(k, name, authzv1.Role_ROLE_AGENT, true) || w.Allows(k, name, authzv1.Role_ROLE_UNSPECIFIED, true) {
				t.Errorf("%s.%s can be written by who never calls the store", state.KindName(k), name)
			}
		}
	}
}

// TestImage: an image gives back all of the state, in as many parts as it takes.
func TestImage(t *testing.T) {
	m := New(writers(t))
	first := &storev1.Transaction{RequestId: "first", ClusterTime: timestamppb.New(start)}
	for i := range 300 {
		first.Puts = append(first.Puts, &storev1.Put{Create: true, Fields: []string{"spec_hash"}, Object: state.Wrap(&typesv1.Service{
			Meta: &typesv1.Meta{Id: fmt.Sprintf("c%03d", i)}, SpecHash: bytes.Repeat([]byte{byte(i)}, 20_000),
		})})
	}
	if out := m.Begin(&typesv1.Epoch{Number: 1, Nonce: 7}, first); out.GetRefusal() != 0 {
		t.Fatal(out)
	}
	group := Group{Peers: []*storev1.RaftPeer{{RaftId: 9, MachineId: "m1"}}, Removed: []uint64{3}}
	var parts [][]byte
	for p, err := range m.Image().Parts(group) {
		if err != nil {
			t.Fatal(err)
		}
		if len(p) > 3<<20 {
			t.Errorf("a part has %d bytes", len(p))
		}
		parts = append(parts, p)
	}
	if len(parts) < 4 {
		t.Errorf("%d parts", len(parts))
	}
	again, g, err := Restore(writers(t), over(parts))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(group, g, protocmp.Transform()); d != "" {
		t.Error(d)
	}
	if again.Snapshot().Version() != m.Snapshot().Version() || again.Snapshot().Count(typesv1.Kind_KIND_SERVICE) != 300 {
		t.Error("the restored state is another one")
	}
	if _, _, err := Restore(writers(t), over(parts[:len(parts)-1])); err == nil {
		t.Error("an image without its last part was taken")
	}
}

func over(parts [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, p := range parts {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// TestMemoryIsBounded: outcomes are forgotten by count and by age.
func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	for i := range memoryCount + 10 {
		m.add(fmt.Sprint(i), &storev1.Outcome{Message: fmt.Sprint(i)}, start)
	}
	if m.order.Len() != memoryCount || m.byKey.Len() != memoryCount || m.find("9") != nil || m.find("10") == nil {
		t.Errorf("%d outcomes kept", m.order.Len())
	}
	m.add("late", &storev1.Outcome{}, start.Add(memoryAge+time.Second))
	if m.order.Len() != 1 || m.find("late") == nil {
		t.Errorf("%d outcomes kept after their age", m.order.Len())
	}
}

func protoNumber(k typesv1.Kind) protoreflect.FieldNumber { return protoreflect.FieldNumber(k) }
