package docker

import (
	"strconv"
	"strings"

	logsv1 "github.com/shoalproject/shoal/proto/shoal/logs/v1"
)

// VolumeRow is a line of `volume ls`.
type VolumeRow struct {
	Driver, Name, Scope, Mountpoint, Labels, CreatedAt string
	Node, NodeID, Service, Slot, UsedBy, Status        string
}

// Volume is what `volume inspect` shows. What Docker has no name for stands at the end.
type Volume struct {
	CreatedAt  string `json:",omitempty"`
	Driver     string
	Labels     map[string]string
	Mountpoint string `json:",omitempty"`
	Name       string
	Scope      string
	Node       string
	NodeID     string
	Service    string   `json:",omitempty"`
	Slot       uint64   `json:",omitempty"`
	UsedBy     []string `json:",omitempty"`
	Status     string   `json:",omitempty"`
}

// VolumeOf translates a volume.
func VolumeOf(l *logsv1.ListedVolume) Volume {
	v := l.GetVolume()
	out := Volume{
		CreatedAt: stamp(v.GetCreatedAt()), Driver: "local", Labels: v.GetLabels(), Mountpoint: v.GetPath(), Name: v.GetName(), Scope: "local",
		Node: l.GetHostname(), NodeID: l.GetNodeId(), Service: v.GetService(), Slot: v.GetSlot(), UsedBy: v.GetUsers(), Status: volumeStatus(l),
	}
	if v.GetService() != "" {
		out.Scope = "slot"
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	return out
}

// volumeStatus says what is out of the ordinary.
func volumeStatus(l *logsv1.ListedVolume) string {
	switch {
	case l.GetUnseen() && l.GetHostname() == "":
		return "node removed"
	case l.GetUnseen():
		return "unseen"
	case GivenUp(l):
		return "given up"
	}
	return ""
}

// GivenUp reports whether a volume was a slot's and is no more.
func GivenUp(l *logsv1.ListedVolume) bool {
	return l.GetVolume().GetSlot() > 0 && l.GetRecord() == nil
}

// VolumeRowOf makes a line.
func VolumeRowOf(l *logsv1.ListedVolume) VolumeRow {
	v := VolumeOf(l)
	row := VolumeRow{
		Driver: v.Driver, Name: v.Name, Scope: v.Scope, Mountpoint: v.Mountpoint, Labels: labels(v.Labels), CreatedAt: v.CreatedAt,
		Node: v.Node, NodeID: v.NodeID, Service: v.Service, UsedBy: strings.Join(v.UsedBy, ","), Status: v.Status,
	}
	if v.Slot > 0 {
		row.Slot = strconv.FormatUint(v.Slot, 10)
	}
	return row
}
