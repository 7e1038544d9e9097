package docker

// Versions is what `version` shows.
type Versions struct {
	Client ClientVersion
	Server *ServerVersion `json:",omitempty"`
}

// ClientVersion is the tool's.
type ClientVersion struct {
	Version, GoVersion, Platform string
	Commit, Committed            string `json:",omitempty"`
}

// ServerVersion is the cluster's.
type ServerVersion struct {
	Version, GoVersion string
	Leader             string
	Revision           uint64
	Epoch              uint64
}

// PrettyVersion is how `version` shows it.
const PrettyVersion = `Client:
 Version:     {{.Client.Version}}
 Go version:  {{.Client.GoVersion}}
{{- with .Client.Commit}}
 Commit:      {{.}}{{end}}
{{- with .Client.Committed}}
 Committed:   {{.}}{{end}}
 OS/Arch:     {{.Client.Platform}}
{{- with .Server}}

Cluster:
 Version:     {{.Version}}
 Go version:  {{.GoVersion}}
 Leader:      {{.Leader}}
 Revision:    {{.Revision}} (epoch {{.Epoch}}){{end}}`
