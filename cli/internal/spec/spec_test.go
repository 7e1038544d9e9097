package spec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/spec"
)

func port(published, target uint32, protocol typesv1.Protocol) *typesv1.PortConfig {
	return &typesv1.PortConfig{PublishedPort: published, TargetPort: target, Protocol: protocol, PublishMode: typesv1.PublishMode_PUBLISH_MODE_INGRESS}
}

func TestPublishSyntax(t *testing.T) {
	const tcp, udp = typesv1.Protocol_PROTOCOL_TCP, typesv1.Protocol_PROTOCOL_UDP
	for _, r := range []struct {
		text  string
		want  []*typesv1.PortConfig
		fault string
	}{
		{text: "80", want: []*typesv1.PortConfig{port(0, 80, tcp)}},
		{text: "8080:80", want: []*typesv1.PortConfig{port(8080, 80, tcp)}},
		{text: "53:53/udp", want: []*typesv1.PortConfig{port(53, 53, udp)}},
		{text: "53/UDP", want: []*typesv1.PortConfig{port(0, 53, udp)}},
		{text: "8080-8081:80-81", want: []*typesv1.PortConfig{port(8080, 80, tcp), port(8081, 81, tcp)}},
		{text: "published=8080,target=80", want: []*typesv1.PortConfig{port(8080, 80, tcp)}},
		{text: "target=53,protocol=udp,mode=ingress", want: []*typesv1.PortConfig{port(0, 53, udp)}},
		{text: "70000", want: []*typesv1.PortConfig{port(0, 70000, tcp)}}, // the store says what a port may be
		{text: "", fault: `"" is no port`},
		{text: ":80", want: []*typesv1.PortConfig{port(0, 80, tcp)}},
		{text: "80:", fault: `"" is no port`},
		{text: "80/", fault: "there is no protocol behind the /"},
		{text: "80/dccp", fault: `protocol "dccp" is not tcp, udp or sctp`},
		{text: "127.0.0.1:80:80", fault: "no address can be given"},
		{text: "80-82:80", fault: "the ranges differ in length"},
		{text: "82-80", fault: "is no range"},
		{text: "1-60000", fault: "is no range of at most 1000 ports"},
		{text: "-1", fault: "is no port"},
		{text: "published=80", fault: "target is missing"},
		{text: "target=80,target=81", fault: "target is given twice"},
		{text: "target=80,mode=hast", fault: `mode "hast" is not ingress or host`},
		{text: "target=80,published=8080,mode=host", want: []*typesv1.PortConfig{
			{PublishedPort: 8080, TargetPort: 80, Protocol: tcp, PublishMode: typesv1.PublishMode_PUBLISH_MODE_HOST},
		}},
		{text: "target=80,color=red", fault: `"color=red" is not one of published, target, protocol, mode`},
	} {
		got, err := spec.ParsePorts(r.text)
		if diff := cmp.Diff(r.want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%q: %s", r.text, diff)
		}
		if (err != nil) != (r.fault != "") || err != nil && (!strings.Contains(err.Error(), r.fault) || !errs.Is(err, errs.Invalid)) {
			t.Errorf("%q: %v, wanted %q", r.text, err, r.fault)
		}
	}
}

func TestWordsAreSplitAsAShellDoes(t *testing.T) {
	for text, want := range map[string][]string{
		"":                    nil,
		"  a  b ":             {"a", "b"},
		`sh -c 'a "b"  c'`:    {"sh", "-c", `a "b"  c`},
		`"a b"c \"d\" 'e'"f"`: {"a bc", `"d"`, "ef"},
		`''`:                  {""},
		`'\n'`:                {`\n`},
	} {
		got, err := spec.Words(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", text, err, diff)
		}
	}
	for _, text := range []string{`'a`, `"a`, `a\`} {
		if got, err := spec.Words(text); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}

// flagsOf parses a command line of create or update.
func flagsOf(t *testing.T, define func(*spec.Flags), args ...string) *spec.Flags {
	t.Helper()
	set := pflag.NewFlagSet("test", pflag.ContinueOnError)
	f := spec.New(set, func(name string) string { return map[string]string{"COLOR": "blue"}[name] }, files)
	define(f)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestEveryCreateFlagReachesTheSpec(t *testing.T) {
	f := flagsOf(t, (*spec.Flags).Create, "--name", "web", "--replicas", "3", "-p", "80", "--network", "front", "--network", "name=back,alias=db,alias=sql",
		"-e", "A=1", "-e", "COLOR", "-e", "UNSET", "-e", "A=2", "-l", "x=y", "--container-label", "c=d", "--limit-cpu", "1.5", "--limit-memory", "512m",
		"--limit-pids", "10", "--reserve-cpu", ".25", "--reserve-memory", "1g", "--reserve-disk", "10g", "--restart-condition", "none", "--restart-delay", "1s",
		"--restart-max-attempts", "4", "--restart-window", "2m", "--update-parallelism", "0", "--update-delay", "3s", "--update-order", "start-first",
		"--stop-grace-period", "7s", "--stop-signal", "SIGINT", "--hostname", "h", "-u", "1:2", "-w", "/srv", "--entrypoint", "a 'b c'", "--read-only")
	got, err := f.Spec("img:1", []string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	three, zero := uint64(3), uint64(0)
	want := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "web", Labels: map[string]string{"x": "y"}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &three}},
		Endpoint:    &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{port(0, 80, typesv1.Protocol_PROTOCOL_TCP)}},
		Update:      &typesv1.UpdateConfig{Parallelism: &zero, Delay: durationpb.New(3e9), Order: typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST},
		Task: &typesv1.TaskSpec{
			Container: &typesv1.ContainerSpec{
				Image: "img:1", Args: []string{"serve"}, Command: []string{"a", "b c"}, Env: []string{"A=2", "COLOR=blue"}, Dir: "/srv", User: "1:2",
				Hostname: "h", Labels: map[string]string{"c": "d"}, StopSignal: "SIGINT", StopGracePeriod: durationpb.New(7e9), ReadOnly: true,
			},
			Networks: []*typesv1.NetworkAttachment{{Target: "front"}, {Target: "back", Aliases: []string{"db", "sql"}}},
			Resources: &typesv1.ResourceRequirements{
				Limits:       &typesv1.Resources{NanoCpus: 15e8, MemoryBytes: 512 << 20, Pids: 10},
				Reservations: &typesv1.Resources{NanoCpus: 25e7, MemoryBytes: 1 << 30, DiskBytes: 10 << 30},
			},
			Restart: &typesv1.RestartPolicy{
				Condition: typesv1.RestartCondition_RESTART_CONDITION_NONE, Delay: durationpb.New(1e9), MaxAttempts: 4, Window: durationpb.New(120e9),
			},
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestAnUpdateLeavesWhatItDoesNotName(t *testing.T) {
	f := flagsOf(t, (*spec.Flags).Create, "--name", "web", "--replicas", "3", "-p", "8080:80", "-p", "53/udp", "--network", "front", "-e", "A=1", "-e", "B=2",
		"-l", "x=y", "--limit-cpu", "1", "--restart-delay", "1s", "--update-order", "start-first")
	start, err := f.Spec("img:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	start.Task.Networks[0].Target = "front-id"
	ids := func(name string) (string, error) { return name + "-id", nil }
	change := flagsOf(t, (*spec.Flags).Update, "--image", "img:2", "--args", "a b", "--force", "--env-add", "B=3", "--env-rm", "A", "--label-add", "k=v", "--label-rm", "x",
		"--publish-add", "9090:80", "--publish-rm", "53/udp", "--network-rm", "front", "--network-add", "back", "--limit-memory", "64m", "--update-delay", "1s")
	got := start
	if err := change.Change(got, ids, ids); err != nil {
		t.Fatal(err)
	}
	three := uint64(3)
	want := &typesv1.ServiceSpec{
		Annotations: &typesv1.Annotations{Name: "web", Labels: map[string]string{"k": "v"}},
		Mode:        &typesv1.ServiceSpec_Replicated{Replicated: &typesv1.Replicated{Replicas: &three}},
		Endpoint:    &typesv1.EndpointSpec{Ports: []*typesv1.PortConfig{port(9090, 80, typesv1.Protocol_PROTOCOL_TCP)}},
		Update:      &typesv1.UpdateConfig{Delay: durationpb.New(1e9), Order: typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST},
		Task: &typesv1.TaskSpec{
			Container:   &typesv1.ContainerSpec{Image: "img:2", Args: []string{"a", "b"}, Env: []string{"B=3"}},
			Networks:    []*typesv1.NetworkAttachment{{Target: "back"}},
			Resources:   &typesv1.ResourceRequirements{Limits: &typesv1.Resources{NanoCpus: 1e9, MemoryBytes: 64 << 20}},
			Restart:     &typesv1.RestartPolicy{Delay: durationpb.New(1e9)},
			ForceUpdate: 1,
		},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}
