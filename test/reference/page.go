package main

import (
	"fmt"
	"strconv"
	"strings"
)

// process is one of ours with a config file.
type process struct {
	name string
	port int // 0: it listens nowhere
}

func processes() []process {
	return []process{
		{"ca", 2377}, {"store", 2381}, {"scheduler", 2382}, {"dispatcher", 2383}, {"gateway", 2384}, {"meshproxy", 2385}, {"agent", 0},
	}
}

// keysOf is all that one process's file may say.
func keysOf(root string, p process) ([]key, error) {
	where := "services/" + p.name
	files, err := parse(root, where)
	if err != nil {
		return nil, err
	}
	keys, err := fieldsOf(root, files, "Config", where)
	if err != nil {
		return nil, err
	}
	values, err := defaults(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	fill := strings.NewReplacer("<process>", p.name, "<port>", strconv.Itoa(p.port))
	var out []key
	for _, k := range keys {
		if k.name == "listen" && p.port == 0 {
			continue // there it is refused
		}
		k.value = values[k.goName]
		if k.value == "" && k.goType == "bool" {
			k.value = "false"
		}
		k.doc = fill.Replace(k.doc)
		for word, text := range k.marks {
			k.marks[word] = fill.Replace(text)
		}
		if err := k.fits(); err != nil {
			return nil, fmt.Errorf("%s.%s: %w", k.defined, k.goName, err)
		}
		out = append(out, k)
	}
	return out, nil
}

// fits says what a key's comment lacks, or says against the code.
func (k key) fits() error {
	said := k.marks["Default"]
	_, required := k.marks["Required"]
	switch {
	case k.value != "" && said != "" && said != k.value:
		return fmt.Errorf("the comment says the default is %s, DefaultConfig says %s", said, k.value)
	case k.value == "" && said == "" && !required:
		return fmt.Errorf(`DefaultConfig sets nothing: say "Default: …." or "Required." in its comment`)
	case k.name == "":
		return fmt.Errorf("no name in its yaml tag")
	case k.isNumber() && k.marks["Limits"] == "":
		return fmt.Errorf(`say "Limits: …." in its comment`)
	case k.isNumber() && k.goType != "time.Duration" && k.marks["Unit"] == "":
		return fmt.Errorf(`say "Unit: …." in its comment`)
	case k.sample() == "":
		return fmt.Errorf(`has no value for an example: say "Example: …." in its comment`)
	}
	return nil
}

func (k key) isNumber() bool {
	return k.goType == "time.Duration" || strings.HasPrefix(k.goType, "int") || strings.HasPrefix(k.goType, "uint")
}

// kind is the type as a writer of YAML sees it.
func (k key) kind() string {
	switch {
	case k.goType == "time.Duration":
		return "duration"
	case k.goType == "[]string":
		return "list of texts"
	case k.goType == "string":
		return "text"
	case k.goType == "bool":
		return "true or false"
	case k.isNumber():
		return "number (" + k.marks["Unit"] + ")"
	}
	return k.goType
}

// initial is what holds when the file leaves the key out.
func (k key) initial() string {
	switch {
	case k.value != "":
		return "`" + k.value + "`"
	case k.isCode(k.marks["Default"]):
		return "`" + k.marks["Default"] + "`"
	case k.marks["Default"] != "":
		return k.marks["Default"]
	}
	return "required"
}

// isCode says whether a default is a value that could stand in the file, not words about one.
func (k key) isCode(text string) bool { return text != "" && k.marks["Example"] == "" }

// sample is a value for the example: the default if it is one.
func (k key) sample() string {
	if e := k.marks["Example"]; e != "" {
		return e
	}
	if k.value != "" {
		return k.value
	}
	return k.marks["Default"]
}

func (k key) live() string {
	if k.marks["Reload"] == "live" {
		return "live"
	}
	return "restart"
}

// page is the Markdown of one process.
func page(root string, p process) ([]byte, error) {
	keys, err := keysOf(root, p)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<!-- Made from services/%s and internal/config by `make fix-docs`. Edit the comments there. -->\n", p.name)
	fmt.Fprintf(&b, "# /etc/shoal/%s.yaml\n\nThe settings of `shoal-%s`. What holds for all such files stands in [README.md](README.md).\n\n", p.name, p.name)
	b.WriteString("| key | type | default | limits | a change takes | what it is |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", k.name, k.kind(), k.initial(), k.marks["Limits"], k.live(), strings.TrimSuffix(k.doc, "."))
	}
	b.WriteString("\n## All keys\n\nA key that is left out has its default; a file with `advertise` alone is complete.\n\n```yaml\n")
	for _, k := range keys {
		fmt.Fprintf(&b, "%s: %s\n", k.name, k.sample())
	}
	b.WriteString("```\n")
	return []byte(b.String()), nil
}
