// Package pages runs what documentation tells people to type, so that a page cannot say what does not work.
//
// A page is Markdown. Each of its fenced blocks says what it is in the words behind the fence, of which GitHub shows none:
//
//	sh host=m1            a script for bash on that host; with host=m1,w1 on each of them, in this order
//	sh host=m1 set=TOKEN  the same; what it prints is $TOKEN in all later blocks
//	sh host=m1 when=full  the same, but only run when the caller asks for "full"
//	sh host=m1 exit=1     the same; it has to end with this code
//	sh vars               NAME=value lines with what a reader puts in; the caller has values of its own for these names
//	output                what the script before it prints, loosely: see Matches
//	yaml host=m1 file=P   written to the file P on that host; so with conf and json
//	text                  neither run nor compared
//
// Anything else is a fault of the page, and so is code that is indented instead of fenced: nothing that looks like a command
// goes by without being run or called text. A page runs from top to bottom and ends at the first block that fails.
//
// The package knows nothing of hosts; a Runner does. It must never change a script. A Page is not changed by running it.
package pages

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Page is a parsed page.
type Page struct {
	// Name is what errors call it.
	Name string
	// Blocks are its fenced blocks in their order.
	Blocks []Block
}

// Block is one fenced block.
type Block struct {
	// Line is where its fence stands, from 1.
	Line int
	// Kind is the first word behind the fence.
	Kind string
	// Hosts are where it is run or written.
	Hosts []string
	// Set, When, Exit and File are the attributes of these names.
	Set, When, Exit, File string
	// Vars are the names that a `sh vars` block assigns.
	Vars []string
	// Text is what stands between the fences.
	Text string
}

// Runner runs a script by bash on a named host and returns what it wrote to standard output. An error is for everything but
// the exit code 0, and holds the code if it has a method ExitCode() int, as *exec.ExitError has.
type Runner interface {
	Run(ctx context.Context, host, script string) (string, error)
}

// Parse reads a page. The error has all its faults.
func Parse(name string, text []byte) (*Page, error) {
	p := &Page{Name: name}
	var faults []error
	fault := func(line int, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s:%d: %s", name, line, fmt.Sprintf(format, args...)))
	}
	var open *Block
	var indent string
	blank, list := true, false
	for i, line := range strings.Split(string(text), "\n") {
		bare := strings.TrimLeft(line, " ")
		switch {
		case open != nil && strings.TrimSpace(line) == "```":
			if err := p.add(*open); err != nil {
				fault(open.Line, "%s", err)
			}
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		case strings.HasPrefix(bare, "```"):
			indent = line[:len(line)-len(bare)]
			block, err := head(i+1, strings.TrimPrefix(bare, "```"))
			if err != nil {
				fault(i+1, "%s", err)
			}
			open = &block
		case strings.HasPrefix(bare, "~~~"):
			fault(i+1, "fence with ``` instead of ~~~")
		case blank && !list && (strings.HasPrefix(line, "    ") || strings.HasPrefix(line, "\t")):
			fault(i+1, "code that is indented is not run: fence it")
		}
		if blank = strings.TrimSpace(line) == ""; !blank && open == nil {
			list = strings.HasPrefix(bare, "- ") || strings.HasPrefix(bare, "* ") || numbered(bare) || list && bare != line
		}
	}
	if open != nil {
		fault(open.Line, "this fence is not closed")
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return p, nil
}

func numbered(line string) bool {
	digits := strings.TrimLeft(line, "0123456789")
	return len(digits) < len(line) && strings.HasPrefix(digits, ". ")
}

// head reads what stands behind a fence.
func head(line int, info string) (Block, error) {
	words := strings.Fields(info)
	if len(words) == 0 {
		return Block{Line: line}, errors.New("this block does not say what it is: write sh host=…, output, text or another kind behind its fence")
	}
	b := Block{Line: line, Kind: words[0]}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		at := map[string]*string{"set": &b.Set, "when": &b.When, "exit": &b.Exit, "file": &b.File}[name]
		switch {
		case name == "host" && value != "":
			b.Hosts = strings.Split(value, ",")
		case word == "vars" && b.Kind == "sh":
			b.Vars = []string{}
		case at != nil && value != "":
			*at = value
		default:
			return b, fmt.Errorf("%q says nothing here; there are host=, set=, when=, exit=, file= and, for sh, vars", word)
		}
	}
	return b, b.check()
}

func (b Block) check() error {
	switch b.Kind {
	case "sh":
		switch {
		case b.Vars == nil && len(b.Hosts) == 0:
			return errors.New("this script does not say where it is run: write sh host=…")
		case b.Vars != nil && len(b.Hosts) > 0:
			return errors.New("vars are for all hosts: leave host= out")
		case b.Set != "" && len(b.Hosts) != 1:
			return errors.New("set= takes one host")
		}
	case "yaml", "conf", "json":
		if b.File == "" || len(b.Hosts) == 0 {
			return fmt.Errorf("a %s block is written to a file: say host= and file=, or call it text", b.Kind)
		}
	case "output", "text":
		if len(b.Hosts) > 0 || b.File != "" {
			return fmt.Errorf("a block of %s has no host and no file", b.Kind)
		}
	default:
		return fmt.Errorf("a block of %q is not run: make it sh, output, yaml, conf or json, or call it text", b.Kind)
	}
	return nil
}

// add takes a block whose end was found.
func (p *Page) add(b Block) error {
	if b.Kind == "output" {
		if len(p.Blocks) == 0 || p.Blocks[len(p.Blocks)-1].Kind != "sh" {
			return errors.New("this output follows no script")
		}
	}
	if b.Vars != nil {
		for line := range strings.Lines(b.Text) {
			name, _, ok := strings.Cut(strings.TrimSpace(line), "=")
			if ok {
				b.Vars = append(b.Vars, strings.TrimPrefix(name, "export "))
			}
		}
		if len(b.Vars) == 0 {
			return errors.New("there are no NAME=value lines in this block of vars")
		}
	}
	p.Blocks = append(p.Blocks, b)
	return nil
}

// Hosts are all hosts that the page names, each once.
func (p *Page) Hosts() []string {
	var out []string
	for _, b := range p.Blocks {
		for _, h := range b.Hosts {
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}
