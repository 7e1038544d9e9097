package holdings_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/cli/internal/holdings"
)

// TestScripts: the audit of addresses, in the words of testdata.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for _, l := range holdings.Audit(cluster(t, d.Input), time.Unix(10_000, 0)) {
				fmt.Fprintf(&out, "%s: %s", l.Grade, l.What)
				if l.Fix != "" {
					fmt.Fprintf(&out, "; %s; %s", l.Why, l.Fix)
				}
				if l.Service != "" {
					fmt.Fprintf(&out, " [%s]", l.Service)
				}
				out.WriteString("\n")
			}
			return out.String()
		})
	})
}

// taskSpec is one whose connections have some seconds to end.
func taskSpec(drain int64) *typesv1.TaskSpec {
	return &typesv1.TaskSpec{Container: &typesv1.ContainerSpec{DrainTime: durationpb.New(time.Duration(drain) * time.Second)}}
}

// cluster reads a line an object: kind, id and key=value. Addresses are NETWORK:ADDRESS, the machine network's without a network.
func cluster(t *testing.T, text string) (c holdings.Cluster) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		meta, has := &typesv1.Meta{Id: words[1]}, map[string][]string{}
		for _, w := range words[2:] {
			key, value, _ := strings.Cut(w, "=")
			has[key] = append(has[key], value)
		}
		one := func(key string) string { return strings.Join(has[key], " ") }
		var held []*typesv1.TaskAddress
		var virtual []*typesv1.VirtualIP
		for _, text := range has["address"] {
			network, a, on := strings.Cut(text, ":")
			if !on {
				network, a = "", text
			}
			held = append(held, &typesv1.TaskAddress{NetworkId: network, Addresses: []string{a}})
			virtual = append(virtual, &typesv1.VirtualIP{NetworkId: network, Addresses: []string{a}})
		}
		named := &typesv1.Annotations{Name: words[1]}
		number := func(key string) int64 {
			n, _ := strconv.ParseInt(one(key), 10, 64)
			return n
		}
		switch words[0] {
		case "node":
			state := typesv1.NodeState_NODE_STATE_READY
			if one("state") == "down" {
				state = typesv1.NodeState_NODE_STATE_DOWN
			}
			c.Nodes = append(c.Nodes, &typesv1.Node{
				Meta: meta, Identity: &typesv1.NodeIdentity{Hostname: words[1]}, Blocks: has["block"], Status: &typesv1.NodeStatus{State: state},
			})
		case "network":
			c.Networks = append(c.Networks, &typesv1.Network{Meta: meta, Spec: &typesv1.NetworkSpec{Annotations: named}, Ipam: &typesv1.NetworkIPAM{Subnets: has["subnet"]}})
		case "service":
			c.Services = append(c.Services, &typesv1.Service{Meta: meta, Spec: &typesv1.ServiceSpec{Annotations: named, Task: taskSpec(number("drain"))}, Endpoint: &typesv1.Endpoint{VirtualIps: virtual}})
		case "task":
			meta.CreatedAt = timestamppb.New(time.Unix(number("created"), 0))
			service, slot, _ := strings.Cut(words[1], ".")
			n, _ := strconv.ParseUint(slot, 10, 64)
			desired, observed := typesv1.TaskState_TASK_STATE_RUNNING, typesv1.TaskState_TASK_STATE_RUNNING
			if one("desired") == "shutdown" {
				desired = typesv1.TaskState_TASK_STATE_SHUTDOWN
			}
			if one("observed") == "failed" {
				observed = typesv1.TaskState_TASK_STATE_FAILED
			}
			c.Tasks = append(c.Tasks, &typesv1.Task{
				Meta: meta, ServiceId: service, Observed: &typesv1.TaskObserved{State: observed},
				Decided: &typesv1.TaskDecided{NodeId: one("node"), Slot: n, Addresses: held, Desired: desired, Since: timestamppb.New(time.Unix(number("since"), 0))},
			})
		default:
			t.Fatalf("no object %q", words[0])
		}
	}
	return c
}

// What is amiss is told in the same words a moment later: by these a second look knows it again.
func TestALaterLookSaysTheSame(t *testing.T) {
	c := cluster(t, "node m1 block=10.128.1.0/24\nservice web\ntask web.1 node=m1 address=10.128.1.6/32 desired=shutdown since=4000")
	first, second := holdings.Audit(c, time.Unix(10_029, 0)), holdings.Audit(c, time.Unix(10_031, 0))
	if first[0].Why == second[0].Why {
		t.Fatalf("no minute begins between them: %s", first[0].Why)
	}
	if first[0].What != second[0].What {
		t.Errorf("%q became %q", first[0].What, second[0].What)
	}
}
