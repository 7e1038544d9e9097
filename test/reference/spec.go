package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The page of the service spec, what it is made of, and the hand-written examples, below the project's folder.
const (
	specPage     = "docs/reference/service-spec.md"
	specExamples = "docs/reference/service-spec-examples.txt"
	specProtos   = "proto/shoal/types/v1/*.proto"
	specRoot     = "ServiceSpec"
)

const specIntro = `<!-- Made from proto/shoal/types/v1 and service-spec-examples.txt by ` + "`make fix-docs`" + `. Edit those. -->

# The service spec, field by field

What ` + "`shoal service create`" + ` and ` + "`update`" + ` set and ` + "`POST /v1/services`" + ` takes, with defaults and limits. The store fills in defaults and
answers a spec with all its faults at once. What only a node can know (a device, the source of a bind) is found out there: the
task is then REJECTED, with the reason, and nothing is left out in silence.

The examples are flags of ` + "`shoal service create`" + `; an update has lists with ` + "`-add` and `-rm`" + `. The same examples as bodies for
REST are in [service-spec-examples.json](service-spec-examples.json). Tests take each through the command line and the store's
admission; that each option arrives in a real container is tested by ` + "`services/agent/internal/executor`" + `.

**Placeholders**, where a field says so: ` + "`{{.Service.ID}}`, `{{.Service.Name}}`, `{{.Service.Labels.NAME}}`, `{{index .Service.Labels \"NAME\"}}`,\n`{{.Node.ID}}`, `{{.Node.Hostname}}`, `{{.Node.Platform.OS}}`, `{{.Node.Platform.Architecture}}`, `{{.Task.ID}}`, `{{.Task.Name}}`, `{{.Task.Slot}}`" + `.
Of a global service the slot is the node's id. The store checks them, the node fills them in.

**Isolation.** A container that asks for nothing is kept apart as Docker's are: 14 capabilities, containerd's filter of system calls,
masked and read-only paths in /proc and /sys, its own pid, ipc, mount, uts and network namespaces (and cgroup namespace with
cgroup v2), no session keyring of its own, AppArmor's default profile where the kernel has AppArmor. Being privileged, or
sharing namespaces of the node and attaching those of other tools, is a setting of the cluster, off by default:
` + "`shoal cluster update --allow-privileged`, `--allow-host-namespaces`" + `. Who may make services may still bind paths of nodes
and add capabilities: operators are trusted.

With ` + "`--userns private`" + ` the root of a container is [no user of its node](user-namespaces.md).

**Not there:** Windows' isolation and credential specs. Memory swappiness needs cgroup v1.
An agent that runs in a container itself (compose) does not see its node's files: it gives no devices and no small init, and makes no
sources of binds.
`

// message is one message of the protos as their text says it.
type message struct {
	name, comment string
	fields        []field
}

type field struct{ name, kind, comment string }

// model is all messages, and the words of all enums.
type model struct {
	messages map[string]*message
	enums    map[string][]string
}

var (
	declared = regexp.MustCompile(`^(message|enum) (\w+) \{`)
	ofField  = regexp.MustCompile(`^\s*((?:optional |repeated )?(?:map<[^>]+>|[\w.]+)) (\w+) = \d+`)
	ofEnum   = regexp.MustCompile(`^\s+([A-Z0-9_]+) = \d+;`)
)

func readProtos(root string) (*model, error) {
	files, err := filepath.Glob(filepath.Join(root, specProtos))
	if err != nil {
		return nil, err
	}
	m := &model{messages: map[string]*message{}, enums: map[string][]string{}}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m.read(string(data))
	}
	return m, nil
}

func (m *model) read(text string) {
	var comment []string
	var now *message
	var enum string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		said := strings.Join(comment, " ")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "// "):
			comment = append(comment, strings.TrimPrefix(strings.TrimSpace(line), "// "))
			continue
		case declared.MatchString(line):
			found := declared.FindStringSubmatch(line)
			now, enum = nil, ""
			if found[1] == "enum" {
				enum = found[2]
			} else {
				now = &message{name: found[2], comment: said}
				m.messages[found[2]] = now
			}
		case enum != "" && ofEnum.MatchString(line):
			m.enums[enum] = append(m.enums[enum], ofEnum.FindStringSubmatch(line)[1])
		case now != nil && ofField.MatchString(line):
			found := ofField.FindStringSubmatch(line)
			now.fields = append(now.fields, field{name: found[2], kind: found[1], comment: said})
		}
		comment = nil
	}
}

// specText is the whole page.
func specText(root string) ([]byte, error) {
	m, err := readProtos(root)
	if err != nil {
		return nil, err
	}
	examples, err := readExamples(filepath.Join(root, specExamples))
	if err != nil {
		return nil, err
	}
	b := &strings.Builder{}
	b.WriteString(specIntro)
	var seen, missing []string
	var walk func(name string)
	walk = func(name string) {
		msg := m.messages[name]
		if msg == nil || slices.Contains(seen, name) {
			return
		}
		seen = append(seen, name)
		missing = append(missing, m.section(b, msg, examples)...)
		for _, f := range msg.fields {
			walk(base(f.kind))
		}
	}
	walk(specRoot)
	for name := range examples {
		if message, _, _ := strings.Cut(name, "."); !slices.Contains(seen, message) {
			return nil, fmt.Errorf("%s: %s is no field of the service spec", specExamples, name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%s has no example, nor another way to set it, of %s", specExamples, strings.Join(missing, ", "))
	}
	return []byte(b.String()), nil
}

// section writes a message, and names its fields without an example. One that is a message has those of its own fields.
func (m *model) section(b *strings.Builder, msg *message, examples map[string]string) (missing []string) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", msg.name, msg.comment)
	if len(msg.fields) == 0 {
		return nil
	}
	b.WriteString("\n| field | type | what | example |\n| --- | --- | --- | --- |\n")
	for _, f := range msg.fields {
		example := strings.ReplaceAll(examples[msg.name+"."+f.name], "|", "\\|")
		if example == "" && m.messages[base(f.kind)] == nil {
			missing = append(missing, msg.name+"."+f.name)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", f.name, m.kind(f.kind), strings.ReplaceAll(f.comment, "|", "\\|"), example)
	}
	return missing
}

// base is the type without what stands before it.
func base(kind string) string {
	kind = strings.TrimPrefix(strings.TrimPrefix(kind, "optional "), "repeated ")
	return kind[strings.LastIndex(kind, ".")+1:]
}

// kind says a type to a reader: a link to a message, the words of an enum, "list of …".
func (m *model) kind(kind string) string {
	name := base(kind)
	words, isEnum := m.enums[name]
	switch {
	case m.messages[name] != nil:
		name = fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	case isEnum:
		prefix := strings.TrimSuffix(words[0], "UNSPECIFIED")
		var list []string
		for _, w := range words[1:] {
			list = append(list, strings.ToLower(strings.TrimPrefix(w, prefix)))
		}
		name = strings.Join(list, ", ")
	case strings.HasPrefix(kind, "map<"):
		return "map"
	}
	if strings.HasPrefix(kind, "repeated ") {
		return "list of " + name
	}
	return name
}

// readExamples reads `Message.field: flags` or `Message.field = how else it is set`, one a line; # begins a comment. What it returns
// is as the page shows it.
func readExamples(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, shown, ok := strings.Cut(line, " = ")
		if !ok || strings.Contains(name, ": ") {
			if name, shown, ok = strings.Cut(line, ": "); ok {
				shown = "`" + shown + "`"
			}
		}
		if !ok || out[name] != "" {
			return nil, fmt.Errorf("%s: %q is not `Message.field: flags`, nor `Message.field = how`, or comes twice", file, line)
		}
		out[name] = shown
	}
	return out, nil
}
