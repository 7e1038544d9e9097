package table_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/shoalproject/shoal/internal/errs"

	"github.com/shoalproject/shoal/cli/internal/table"
)

type row struct {
	ID, Name string
	Parts    []string
}

func TestFormats(t *testing.T) {
	rows := []row{{"1", "web", []string{"a", "b"}}, {"2", "much-longer", nil}}
	columns := []table.Column{{Header: "ID", Field: "ID"}, {Header: "NAME", Field: "Name"}}
	for format, want := range map[string]string{
		"":                                     "ID        NAME\n1         web\n2         much-longer\n",
		"table":                                "ID        NAME\n1         web\n2         much-longer\n",
		`table {{.Name}}\t{{.ID}}`:             "NAME          ID\nweb           1\nmuch-longer   2\n",
		"json":                                 `{"ID":"1","Name":"web","Parts":["a","b"]}` + "\n" + `{"ID":"2","Name":"much-longer","Parts":null}` + "\n",
		"{{json .Parts}}":                      "[\"a\",\"b\"]\nnull\n",
		`{{join .Parts "+"}}`:                  "a+b\n\n",
		"{{upper .Name}}":                      "WEB\nMUCH-LONGER\n",
		"{{title .Name}}":                      "Web\nMuch-longer\n",
		`{{truncate .Name 4}}{{pad .ID 1 2}}|`: "web 1  |\nmuch 2  |\n",
	} {
		var out bytes.Buffer
		if err := table.Write(&out, table.List{Format: format, Columns: columns}, rows); err != nil || out.String() != want {
			t.Errorf("%q: %v\n%s", format, err, out.String())
		}
	}
}

func TestAFaultyTemplateIsTold(t *testing.T) {
	columns := []table.Column{{Header: "ID", Field: "ID"}}
	for _, format := range []string{"{{.Nme}}", "{{.Name", "table {{.Nme}}", "{{frob .ID}}"} {
		for _, rows := range [][]row{nil, {{ID: "1"}}} {
			var out bytes.Buffer
			err := table.Write(&out, table.List{Format: format, Columns: columns}, rows)
			if !errs.Is(err, errs.Invalid) || !strings.HasPrefix(err.Error(), "--format: ") || out.Len() > 0 {
				t.Errorf("%q with %d rows: %v, %q", format, len(rows), err, out.String())
			}
		}
	}
}

func TestInspectIsAnArrayOrATemplateEach(t *testing.T) {
	for format, want := range map[string]string{"": "[]\n", "json": "[]\n", "{{.ID}}": ""} {
		var out bytes.Buffer
		if err := table.Inspect[row](&out, format, nil); err != nil || out.String() != want {
			t.Errorf("%q: %v, %q", format, err, out.String())
		}
	}
	var out bytes.Buffer
	if err := table.Inspect(&out, "{{.Name}}", []row{{Name: "a->b"}, {Name: "c"}}); err != nil || out.String() != "a->b\nc\n" {
		t.Errorf("%v, %q", err, out.String())
	}
}
