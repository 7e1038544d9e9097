package pages_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalproject/shoal/test/pages"
)

// shell runs every host's scripts on this machine, and notes for whom.
type shell struct{ ran []string }

func (s *shell) Run(ctx context.Context, host, script string) (string, error) {
	s.ran = append(s.ran, host)
	out, err := exec.CommandContext(ctx, "bash", "-c", script).Output()
	return string(out), err
}

// fenced makes a page: § stands for a fence.
func fenced(text string) []byte { return []byte(strings.ReplaceAll(text, "§", "```")) }

func TestAPageRunsFromTopToBottom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "it's.yaml")
	p, err := pages.Parse("p.md", fenced(`# Title

Set these:

§sh vars
export M1=192.0.2.1   # the first
PORT=80
§

1. First:

   §sh host=m1 set=TOKEN
   echo noise >&2
   echo " a'b c "
   §

§sh host=m1,w1
echo "token $TOKEN at $M1:$PORT"
echo more >&2
§

§output
token <first> c at …
more
…
§

§yaml host=m1 file=`+file+`
key: $M1
§

§sh host=w2
grep -qx 'key: $M1' "`+file+`"
§

§sh host=w2 exit=3
exit 3
§

§sh host=m9 when=full
exit 1
§

§output
never compared
§

§text
$ rm -rf /
§
`))
	if err != nil {
		t.Fatal(err)
	}
	on := &shell{}
	after := 0
	err = p.Run(t.Context(), on, pages.Options{
		Vars:  map[string]string{"M1": "10.0.0.1", "PORT": "8080"},
		Log:   t.Logf,
		After: func(pages.Block, string) error { after++; return nil },
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"m1", "m1", "w1", "m1", "w2", "w2"}, on.ran); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"m1", "w1", "w2", "m9"}, p.Hosts()); diff != "" || after != 5 {
		t.Errorf("%d blocks were told, hosts %s", after, diff)
	}
}

func TestAPageEndsAtTheFirstFault(t *testing.T) {
	for name, c := range map[string]struct{ page, want string }{
		"a script fails":         {"§sh host=m1\necho so >&2\nfalse\n§\n", "p.md:1: on m1: exit status 1\n$ echo so >&2\n$ false\nso\n"},
		"in its middle":          {"§sh host=m1\nfalse | true\necho on\n§\n", "exit status 1"},
		"a name is not known":    {"§sh host=m1\necho $NOBODY\n§\n", "NOBODY"},
		"another output":         {"§sh host=m1\necho one\n§\n\n§output\ntwo\n§\n", `p.md:5: the script before does not print this: line "one", wanted "two"`},
		"no value for a name":    {"§sh vars\nexport IP=1.2.3.4\n§\n", "no value for $IP"},
		"it should have failed":  {"§sh host=m1 exit=1\ntrue\n§\n", "ended well, and the page says exit code 1"},
		"it failed in other way": {"§sh host=m1 exit=1\nexit 2\n§\n", "exit status 2, and the page says exit code 1"},
		"a file's folder lacks":  {"§conf host=m1 file=/nowhere/at/all\nx\n§\n", "write /nowhere/at/all on m1"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := pages.Parse("p.md", fenced(c.page))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Run(t.Context(), &shell{}, pages.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	p, err := pages.Parse("p.md", fenced("§sh host=m1\ntrue\n§\n"))
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if err := p.Run(t.Context(), &shell{}, pages.Options{After: func(pages.Block, string) error { return no }}); !errors.Is(err, no) {
		t.Errorf("what After says is lost: %v", err)
	}
}

// Nothing that looks like a command goes by without being run or called text, and all faults of a page are told.
func TestAPageThatHidesCommandsIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ page, want string }{
		"no kind":             {"§\nrm x\n§", "p.md:1: this block does not say what it is"},
		"unknown kind":        {"§bash host=m1\nx\n§", `a block of "bash" is not run`},
		"no host":             {"§sh\nx\n§", "where it is run"},
		"unknown attribute":   {"§sh host=m1 often\nx\n§", `"often" says nothing here`},
		"attribute is empty":  {"§sh host= \nx\n§", `"host=" says nothing here`},
		"vars with a host":    {"§sh vars host=m1\nA=1\n§", "leave host= out"},
		"no vars":             {"§sh vars\necho\n§", "no NAME=value lines"},
		"set from many":       {"§sh host=a,b set=X\nx\n§", "set= takes one host"},
		"file without a name": {"§yaml host=m1\nx: 1\n§", "say host= and file="},
		"text with a host":    {"§text host=m1\nx\n§", "no host"},
		"output of nothing":   {"§output\nx\n§", "follows no script"},
		"indented code":       {"Type:\n\n    rm -rf /\n", "p.md:3: code that is indented is not run"},
		"tildes":              {"~~~\nx\n~~~\n", "fence with ```"},
		"not closed":          {"§text\nx\n", "p.md:1: this fence is not closed"},
		"all at once":         {"§\nx\n§\n\n§sh\nx\n§\n", "p.md:5: this script"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := pages.Parse("p.md", fenced(c.page)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	if _, err := pages.Parse("p.md", []byte("- a list\n\n    which goes on\n\nAnd text.\n")); err != nil {
		t.Error(err)
	}
}

func TestMatches(t *testing.T) {
	for i, c := range []struct {
		said, printed string
		same          bool
	}{
		{"a b", "  a   b\n\n", true},
		{"<id>", "z1x2", true},
		{"<id>", "two words", false},
		{"<node id> Ready", "z1 Ready", true},
		{"ID …", "ID   HOSTNAME STATUS", true},
		{"ID …", "ID", true},
		{"<id> … m1", "x m1", true},
		{"<id> … m1", "x * m1", true},
		{"<id> … m1", "xm1", false},
		{"at …:80", "at 10.0.0.1:80", true},
		{"a\n…", "a\nb\nc", true},
		{"a\n…", "a", true},
		{"…\nc", "a\nb\nc", true},
		{"…\nc", "a\nb", false},
		{"…\nb\n…\nd", "a\nb\nc\nd", true},
		{"a\nc", "a\nb\nc", false},
		{"a", "a\nb", false},
		{"a\nb", "a", false},
		{"", "", true},
		{"", "a", false},
		{"1.2 (x)", "1.2 (x)", true},
		{"1.2", "112", false},
	} {
		if err := pages.Matches(c.said, c.printed); (err == nil) != c.same {
			t.Errorf("%d: %q and %q: %v", i, c.said, c.printed, err)
		}
	}
}

func ExampleMatches() {
	fmt.Println(pages.Matches("<id>  micro  …  7/7", "x7k2 micro replicated 7/7"))
	fmt.Println(pages.Matches("<id>  micro  …  7/7", "x7k2 micro replicated 6/7"))
	// Output:
	// <nil>
	// line "x7k2 micro replicated 6/7", wanted "<id> micro … 7/7"
}
