package docker

import (
	"fmt"
	"strings"
	"time"

	"github.com/docker/go-units"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Data is a secret or config as inspect shows it. A secret's data is never in it.
type Data struct {
	ID        string
	Version   Version
	CreatedAt string
	UpdatedAt string
	Spec      DataSpec
	// Versions of the data that are kept, the one in force first.
	Versions []DataVersion
}

// DataSpec is what a person gave it.
type DataSpec struct {
	Name   string
	Labels map[string]string
	// Data of a config, as base64 in JSON.
	Data []byte `json:",omitempty"`
	// Templating says that the data has placeholders.
	Templating *Driver `json:",omitempty"`
}

// Driver is Docker's form of something that has a name.
type Driver struct{ Name string }

// TemplateDriver is Docker's name of the one way to fill in data.
const TemplateDriver = "golang"

// DataVersion is one version of the data.
type DataVersion struct{ Number, Bytes uint64 }

// kept is what secrets and configs have in common.
type kept interface {
	GetMeta() *typesv1.Meta
	GetAnnotations() *typesv1.Annotations
	GetVersions() []*typesv1.DataVersion
}

// templated says whether the data has placeholders; a registry's login never has.
func templated(o kept) bool {
	t, ok := o.(interface{ GetTemplate() bool })
	return ok && t.GetTemplate()
}

// DataOf translates a secret or config; data is a config's.
func DataOf(o kept, data []byte) Data {
	out := Data{
		ID: o.GetMeta().GetId(), Version: Version{o.GetMeta().GetRevision()},
		CreatedAt: stamp(o.GetMeta().GetCreatedAt()), UpdatedAt: stamp(o.GetMeta().GetUpdatedAt()),
		Spec: DataSpec{Name: o.GetAnnotations().GetName(), Labels: named(o.GetAnnotations()).Labels, Data: data},
	}
	if templated(o) {
		out.Spec.Templating = &Driver{TemplateDriver}
	}
	for _, v := range o.GetVersions() {
		out.Versions = append(out.Versions, DataVersion{v.GetNumber(), v.GetBytes()})
	}
	return out
}

// PrettyData shows a secret or config for people.
const PrettyData = `ID:			{{.ID}}
Name:			{{.Spec.Name}}
{{- if .Spec.Labels}}
Labels:
{{- range $k, $v := .Spec.Labels}}
 - {{$k}}={{$v}}
{{- end}}
{{- end}}
Created at:		{{.CreatedAt}}
Updated at:		{{.UpdatedAt}}
Versions:
{{- range .Versions}}
 - {{.Number}} ({{.Bytes}} bytes)
{{- end}}
{{- if .Spec.Data}}
Data:
{{printf "%s" .Spec.Data}}
{{- end}}`

// DataRow is a line of a list.
type DataRow struct {
	ID, Name, Version, CreatedAt, UpdatedAt string
	Labels                                  map[string]string
}

// DataRowOf translates one for a list; whole keeps the id as it is.
func DataRowOf(o kept, now time.Time, whole bool) DataRow {
	row := DataRow{
		ID: id(o.GetMeta().GetId(), whole), Name: o.GetAnnotations().GetName(), Labels: o.GetAnnotations().GetLabels(),
		CreatedAt: ago(now, o.GetMeta().GetCreatedAt()), UpdatedAt: ago(now, o.GetMeta().GetUpdatedAt()),
	}
	if v := o.GetVersions(); len(v) > 0 {
		row.Version = fmt.Sprint(v[0].GetNumber())
	}
	return row
}

func ago(now time.Time, t *timestamppb.Timestamp) string {
	return strings.ToLower(units.HumanDuration(now.Sub(t.AsTime()))) + " ago"
}

// FileReference is a secret or config in a container, in Docker's form, and which version of its data.
type FileReference struct {
	File       *FileTarget
	SecretID   string `json:",omitempty"`
	SecretName string `json:",omitempty"`
	ConfigID   string `json:",omitempty"`
	ConfigName string `json:",omitempty"`
	Version    uint64
	Pinned     bool `json:",omitempty"`
}

// FileTarget is the file.
type FileTarget struct {
	Name, UID, GID string
	Mode           uint32
}

func fileReferences(refs []*typesv1.FileReference, secret bool) []FileReference {
	var out []FileReference
	for _, r := range refs {
		f := FileReference{
			File:    &FileTarget{Name: r.GetTarget(), UID: fmt.Sprint(r.GetUid()), GID: fmt.Sprint(r.GetGid()), Mode: r.GetMode()},
			Version: r.GetVersion(), Pinned: r.GetPinned(),
		}
		if secret {
			f.SecretID, f.SecretName = r.GetId(), r.GetName()
		} else {
			f.ConfigID, f.ConfigName = r.GetId(), r.GetName()
		}
		out = append(out, f)
	}
	return out
}
