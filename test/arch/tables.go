package arch

// Every exception to a rule stands in this file. Before you add a line here, try to make the code fit the rule: each
// line is a place where the simulation cannot look, or where a reader must know more than the rule.

// systemPackages may touch the operating system: sockets, files, processes, signals, environment. All else in
// services/ and internal/ gets them through env, so that the whole control plane runs in one test.
var systemPackages = map[string]string{
	"internal/run":                             "the env implementation of a real machine",
	"internal/failpoint":                       "the files by which the laboratory stops a process, only behind the build tag failpoint",
	"internal/netpass":                         "descriptors over a unix socket",
	"internal/journald":                        "the journal's socket, for the env of a real machine",
	"services/store/internal/logstore":         "the log and snapshots on a real disk",
	"services/agent/internal/system":           "containerd, cgroups, mounts and the journal's files",
	"services/agent/internal/journal":          "the journal's file",
	"services/agent/internal/executor":         "the containerd client",
	"services/agent/internal/pull":             "registries, and credential helpers",
	"services/agent/internal/initd":            "process 1 of a container",
	"services/agent/internal/volume":           "the volumes, on disk and mounted",
	"services/agent/internal/memfs":            "files in memory, for containers alone",
	"services/agent/internal/network":          "the local half of the machine network, in the kernel",
	"services/agent/internal/attach":           "what is kept of other tools' containers",
	"services/agent/internal/kernel":           "what the machine has for containers",
	"services/agent/internal/userns":           "user namespaces, and the owners of files in them",
	"services/agent/internal/shim":             "containerd's shims",
	"services/agent/internal/usage":            "control groups",
	"services/agent/internal/doctor":           "looks at containerd, runc and control groups",
	"services/agent/internal/logfile":          "the files of the containers' output",
	"services/agent/internal/tree":             "the files of containers, by the kernel's own resolution of paths",
	"services/agent/internal/journalread":      "runs journalctl",
	"services/agent/internal/keeper":           "starts and watches loggers, and holds containers' pipes",
	"services/agent/internal/logger":           "a process of its own beside each container: its pipes, its clock, the journal's socket",
	"services/meshproxy/internal/tables":       "kernel tables",
	"services/meshproxy/internal/match":        "the kernel's numbers for rules",
	"services/meshproxy/internal/layout":       "the kernel's numbers for sets",
	"services/meshproxy/internal/flows":        "tracked connections",
	"services/meshproxy/internal/holder":       "processes that have a port",
	"services/meshproxy/internal/quota":        "how many connections containers may begin",
	"services/meshproxy/internal/voice":        "what containers' ports may say",
	"services/meshproxy/internal/pass":         "another firewall's chain",
	"services/meshproxy/internal/surroundings": "looks at the machine's network",
	"services/meshproxy/internal/tracked":      "reads tracked connections",
	"services/meshproxy/internal/space":        "tables in containers' namespaces",
	"services/meshproxy/internal/packet":       "socket options of published UDP ports",
	"services/meshproxy/internal/relay":        "carries between sockets without the runtime's poller",
	"services/meshproxy/internal/doctor":       "looks at what the kernel has",
	"services/meshproxy/internal/probe":        "tries what the kernel has",

	"services/meshproxy/internal/sysctl":    "the kernel's settings",
	"services/meshproxy/internal/wireguard": "WireGuard's devices, and the process of one",
}

// purePackages take time and everything else as arguments. A pattern that ends in "/..." covers what lies below.
var purePackages = map[string]string{
	"internal/state":                          "the immutable snapshot",
	"internal/constraint":                     "what a node must be",
	"internal/cron":                           "when a schedule comes",
	"internal/placeholder":                    "what is filled in on a node",
	"services/scheduler/internal/decide/...":  "the scheduler's decision",
	"services/scheduler/internal/explain":     "why tasks are where they are",
	"services/scheduler/internal/forecast":    "what would happen if",
	"services/store/internal/fsm/...":         "the replicated state machine",
	"services/store/internal/alloc/...":       "addresses and ports",
	"services/agent/internal/task/...":        "the task machine",
	"services/agent/internal/pull/verdict":    "what follows a pull that did not work",
	"services/store/internal/admit/...":       "what is a valid spec",
	"services/dispatcher/internal/assign/...": "what a node needs",
	"services/meshproxy/internal/mesh/...":    "what a machine's data path should be",
	"services/meshproxy/internal/kernel/...":  "what of a machine's network is ours",
	"services/meshproxy/internal/silence/...": "who is left out while nobody says who is off",
	"services/meshproxy/internal/names/...":   "what a name means to a container",
	"services/meshproxy/internal/ends/...":    "the addresses of tunnels' ends",
	"services/meshproxy/internal/turn/...":    "how one of a port's tasks is chosen",
	"services/meshproxy/internal/shards/...":  "maps that share what has not changed",
	"services/meshproxy/internal/seal/...":    "which key is used when, between whom",
}

// pureWithLock are pure packages whose values are shared by goroutines.
var pureWithLock = map[string]string{
	"internal/state": "two changes may begin from one snapshot at once",
}

// clockReaders may call time.Now, to measure durations. Wall time is env.Now.
var clockReaders = map[string]string{
	"internal/run":   "the real env",
	"internal/lease": "counts silence by its own monotonic clock",
	"internal/rpc":   "measures calls",

	"services/agent/agenttest": "counts what hollow containers use",

	"internal/process": "measures how long ago it said how it is, and how many calls come in a minute",

	"services/scheduler/internal/decideloop": "measures decisions and commits",

	"services/store/internal/logstore": "measures syncs",
	"services/store/internal/raftnode": "measures commits, and counts cluster time on while it leads",

	"services/meshproxy/internal/forward":   "measures idle time, and sets deadlines of connections",
	"services/meshproxy/internal/relay":     "measures how long ago dialling began",
	"services/meshproxy/internal/session":   "measures how long a stream has lived",
	"services/meshproxy/internal/ingress":   "measures the silence of its dispatcher",
	"services/meshproxy/internal/apply":     "measures how long ago its file was written",
	"cli/internal/command/diagnose":         "measures how long an answer took",
	"services/meshproxy/internal/knock":     "measures how long a machine has been silent",
	"services/meshproxy/internal/wireguard": "sets deadlines of conversations with a device's process",

	"services/meshproxy/internal/space": "measures how long ago tasks ended, and sets deadlines of connections",
	"services/meshproxy/internal/dns":   "measures the age of answers, and sets deadlines of connections",

	"services/dispatcher/internal/liveness": "counts the silence of nodes and peers",
	"services/dispatcher/internal/session":  "stamps when a node was last heard, for liveness",
	"services/dispatcher/internal/barrier":  "measures how long ago a meshproxy left, and paces publications",
	"services/dispatcher/internal/spread":   "measures for how long the same dispatchers have been there",

	"services/agent/internal/mesh": "sets deadlines of connections",

	"services/gateway/internal/rest": "sets read deadlines of connections",

	"services/agent/internal/session":  "measures how long ago it had its last turn",
	"services/agent/internal/inside":   "paces what is read back",
	"services/agent/internal/keeper":   "paces the starts of loggers",
	"services/agent/internal/logger":   "stamps what containers write, and paces it",
	"services/agent/internal/executor": "stamps what is read of containers",
	"services/agent/internal/pull":     "paces what is told of a pull",
}

// statefulFiles may have variables that change.
var statefulFiles = map[string]string{
	"internal/failpoint/on.go": "where a test lets a process fail, only behind the build tag failpoint: no product has it",
}

// goStarters may contain go statements beside tests and the test module.
var goStarters = map[string]string{
	"internal/run":    "the one runner: names, panic capture, first error cancels all",
	"internal/beside": "what the runner stands on, for programs that link nothing else",
}

// foreignWalls says which folders may import a library of others. An empty list means nobody.
var foreignWalls = []struct {
	Prefix string
	Only   []string
	Why    string
}{
	{"go.etcd.io/raft", []string{"services/store"}, "consensus is the store's"},
	{"go.etcd.io/etcd", []string{"services/store"}, "consensus is the store's"},
	{"github.com/cockroachdb/pebble", []string{"services/store"}, "the log on disk is the store's"},
	{"go.etcd.io/bbolt", []string{"services/store", "services/agent"}, "only the store and the agent's journal keep data"},
	{"github.com/containerd", []string{"services/agent", "test/harness", "test/bench"}, "containers are the agent's"},
	{"github.com/google/nftables", []string{"services/agent", "services/meshproxy", "test/harness", "test/bench"}, "kernel tables are the node's"},
	{"github.com/miekg/dns", []string{"services/meshproxy", "test/harness", "test/bench"}, "names are the meshproxy's"},
	{"github.com/vishvananda", []string{"services/agent", "services/meshproxy", "test/harness", "test/bench"}, "kernel tables are the node's"},
	{"golang.zx2c4.com/wireguard", []string{"services/meshproxy", "test/harness", "test/bench"}, "encryption between machines is the meshproxy's"},
	{"github.com/cloudflare/cfssl", []string{"services/ca", "allinone/cmd"}, "signing is the CA's; a main function silences its log"},
	{"github.com/google/go-containerregistry", []string{"cli", "test/harness", "test/bench"}, "the person's tool asks registries what a tag means; the laboratory makes and serves images"},
	{"github.com/docker/cli", []string{"cli"}, "a person's own logins are where Docker's tool left them"},
	{"github.com/golang/protobuf", nil, "google.golang.org/protobuf is the one runtime"},
	{"github.com/gogo", nil, "google.golang.org/protobuf is the one runtime"},
	{"github.com/stretchr", nil, "tests use the standard library and go-cmp"},
	{"github.com/golang/mock", nil, "fakes, not mocks"},
	{"go.uber.org/mock", nil, "fakes, not mocks"},
	{"github.com/google/wire", nil, "Run wires by hand"},
	{"go.uber.org/fx", nil, "Run wires by hand"},
	{"github.com/sirupsen/logrus", nil, "log/slog, passed in"},
	{"go.uber.org/zap", nil, "log/slog, passed in"},
	{"github.com/pkg/errors", nil, "internal/errs and fmt.Errorf"},
}

// rootImporters may import the services' root packages (Config, Run) and their <name>test fakes.
var rootImporters = []string{"test/sim", "test/harness", "test/bench", "allinone"}

// emptyNames say nothing about what a package provides.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "types", "manager", "base", "misc", "shared", "lib", "impl"}

// withEnv are the services whose root package also exports Env, because they need more from outside than run.Env.
var withEnv = []string{"store", "agent", "meshproxy"}

// subcommands are what a service's root package exports beside Run, for subcommands of its binary that work while the
// process does not run: `shoal-ca bootstrap`, `shoal-agent reset`. The simulation and shoal-dev call them, too.
var subcommands = map[string][]string{
	"services/agent":     {"Doctor", "Init", "Logger", "Reset", "ResetAny"},
	"services/meshproxy": {"Doctor", "Reset", "WireGuard"},
	"services/ca":        {"Bootstrap", "BootstrapConfig", "BootstrapResult", "DefaultBootstrapConfig"},
}

// immutableMakers return values that nobody can change; a package-level variable may hold one.
var immutableMakers = map[string][]string{
	"errors":          {"New"},
	"fmt":             {"Errorf"},
	"regexp":          {"MustCompile"},
	"sync":            {"OnceValue", "OnceValues", "OnceFunc"},
	"net/netip":       {"MustParseAddr", "MustParsePrefix", "MustParseAddrPort", "AddrFrom4", "AddrFrom16", "IPv6Unspecified", "IPv4Unspecified"},
	"strings":         {"NewReplacer"},
	"encoding/base32": {"NewEncoding"},
	"encoding/base64": {"NewEncoding"},
	"reflect":         {"TypeFor", "TypeOf"},
	"text/template":   {"Must"},
	"hash/crc32":      {"MakeTable"},
}

// linkVars are strings that the linker sets (Makefile, -ldflags -X).
var linkVars = map[string][]string{"internal/run": {"version", "commit", "date"}}
