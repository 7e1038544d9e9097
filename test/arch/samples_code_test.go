package arch_test

func codeSamples() []sample {
	return []sample{
		{
			rule: "go-statement",
			clean: map[string]string{
				"internal/run/group.go": code(`package run`, `func a() { go a() }`),
				"cli/a_test.go":         code(`package cli`, `func a() { go a() }`),
				"test/sim/sim.go":       code(`package sim`, `func a() { go a() }`),
			},
			broken: map[string]string{
				"cli/a.go":         code(`package cli`, `func b() {`, `	go b()`, `}`),
				"services/ca/a.go": code(`package ca`, `import "sync"`, `var wg sync.WaitGroup`),
			},
			want: []string{"cli/a.go:3", "services/ca/a.go:3"},
		},
		{
			rule:   "no-init",
			clean:  map[string]string{"cli/a.go": code(`package cli`, `type t struct{}`, `func (t) init() {}`)},
			broken: map[string]string{"test/sim/b.go": code(`package sim`, `func init() {}`)},
			want:   []string{"test/sim/b.go:2"},
		},
		{
			rule: "no-package-state",
			clean: map[string]string{
				"internal/a/a.go": code(
					`package a`, `import ("errors"; "regexp"; "encoding/base32"; "net/netip"; "sync"; "embed")`,
					`var errA = errors.New("a")`, `var re = regexp.MustCompile("x")`, `var table = map[string]int{"a": 1}`,
					`var enc = base32.NewEncoding("x").WithPadding(base32.NoPadding)`, `var std = base32.StdEncoding.WithPadding('x')`,
					`var p = netip.MustParsePrefix("10.0.0.0/8")`, `var once = sync.OnceValue(func() int { return 1 })`,
					`//go:embed a.go`, `var src embed.FS`, `var _ error = (*t)(nil)`, `type t struct{ error }`,
				),
				"internal/run/version.go":  code(`package run`, `var version = "dev"`),
				"internal/failpoint/on.go": code(`package failpoint`, `import "sync"`, `var mu sync.Mutex`),
				"cli/a.go":                 code(`package cli`, `var debug bool`),
			},
			broken: map[string]string{
				"services/ca/b.go": code(
					`package ca`, `import "sync"`, `var mu sync.Mutex`, `var seen = map[string]int{}`, `var pool = sync.Pool{}`,
					`var ch = make(chan int)`, `var Table = []string{"a"}`, `var name = "x"`, `func f() { seen["a"]++ }`,
				),
			},
			want: []string{
				"services/ca/b.go:3", "services/ca/b.go:4", "services/ca/b.go:5", "services/ca/b.go:6", "services/ca/b.go:7", "services/ca/b.go:8",
			},
		},
		{
			rule: "no-sleep",
			clean: map[string]string{
				"cli/a.go":         code(`package cli`, `import "time"`, `var d = time.Second`),
				"cli/a_test.go":    code(`package cli`, `import ("testing/synctest"; "time")`, `func f() { time.Sleep(1) }`),
				"cli/help_test.go": code(`package cli`, `import "time"`, `func h() { time.Sleep(1) }`),
				"test/sim/sim.go":  code(`package sim`, `import "time"`, `func f() { time.Sleep(1) }`),
			},
			broken: map[string]string{
				"cli/b.go":        code(`package cli`, `import clock "time"`, `func f() { clock.Sleep(1) }`),
				"proto/b_test.go": code(`package proto`, `import "time"`, `func g() { time.Sleep(1) }`),
			},
			want: []string{"cli/b.go:3", "proto/b_test.go:3"},
		},
		{
			rule:   "skip-reason",
			clean:  map[string]string{"cli/a_test.go": code(`package cli`, `func a(t T) { t.Skip("needs root") }`)},
			broken: map[string]string{"cli/b_test.go": code(`package cli`, `func b(t T) { t.Skip() }`, `func c(t T) { t.Skip(" ") }`, `func d(t T) { t.SkipNow() }`)},
			want:   []string{"cli/b_test.go:2", "cli/b_test.go:3", "cli/b_test.go:4"},
		},
	}
}

func systemSamples() []sample {
	return []sample{
		{
			rule: "env-seam",
			clean: map[string]string{
				"internal/run/os.go":     code(`package run`, `import "os"`, `var f = os.Open`),
				"internal/a/a.go":        code(`package a`, `import ("os"; "net"; "syscall")`, `var e = os.ErrNotExist`, `var c net.Conn`, `var n = syscall.ENOSPC`),
				"internal/a/a_test.go":   code(`package a`, `import "os"`, `var f = os.Open`),
				"services/ca/cmd/x/x.go": code(`package main`, `import "os"`, `var f = os.Args`),
				"cli/a.go":               code(`package cli`, `import "os"`, `var f = os.Open`),
			},
			broken: map[string]string{
				"internal/a/b.go": code(`package a`, `import ("os"; "net"; "os/exec"; "crypto/tls")`, `var f = os.ReadFile`, `var d net.Dialer`, `var x = exec.Command`, `var t = tls.Dial`, `var l = net.Listen`),
			},
			want: []string{"internal/a/b.go:3", "internal/a/b.go:4", "internal/a/b.go:5", "internal/a/b.go:6", "internal/a/b.go:7"},
		},
		{
			rule:   "wall-clock",
			clean:  map[string]string{"internal/run/now.go": code(`package run`, `import "time"`, `var now = time.Now`)},
			broken: map[string]string{"services/ca/now.go": code(`package ca`, `import "time"`, `var now = time.Now`)},
			want:   []string{"services/ca/now.go:3"},
		},
		{
			rule: "pure-core",
			clean: map[string]string{
				"internal/state/a.go":              code(`package state`, `import ("net/netip"; "sync"; "time"; "example.org/house/proto/types/v1"; "math/rand/v2")`, `func f(now time.Time, r *rand.Rand) {}`, `var mu sync.Mutex`),
				"services/store/internal/fsm/a.go": code(`package fsm`, `import "example.org/house/internal/state"`),
			},
			broken: map[string]string{
				"services/store/internal/fsm/b.go":     code(`package fsm`, `import "os"`, `import "google.golang.org/grpc"`, `import "example.org/house/internal/rpc"`),
				"services/store/internal/alloc/x/b.go": code(`package x`, `import ("time"; "sync"; "math/rand/v2")`, `var now = time.Now`, `var mu sync.Mutex`, `var n = rand.IntN(4)`),
			},
			want: []string{
				"services/store/internal/alloc/x/b.go:3", "services/store/internal/alloc/x/b.go:4", "services/store/internal/alloc/x/b.go:5",
				"services/store/internal/fsm/b.go:2", "services/store/internal/fsm/b.go:3", "services/store/internal/fsm/b.go:4",
			},
		},
	}
}
