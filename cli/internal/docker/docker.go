// Package docker says our objects in Docker's words: the fields of its tables and the shape of its inspect, so that what
// people have written for docker works here.
//
// It only translates: no call, no decision, no clock of its own. Its functions keep nothing.
package docker

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// Version is an object's version. Index is its revision.
type Version struct{ Index uint64 }

// Named is what a person calls an object.
type Named struct {
	Name   string            `json:",omitempty"`
	Labels map[string]string `json:"Labels"`
}

func named(a *typesv1.Annotations) Named {
	n := Named{Name: a.GetName(), Labels: a.GetLabels()}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	return n
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

func nanos(d *durationpb.Duration) *int64 {
	if d == nil {
		return nil
	}
	n := d.AsDuration().Nanoseconds()
	return &n
}

// word is the last part of an enum's name in Docker's form: TASK_STATE_RUNNING is "running".
func word(enum, prefix string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(enum, prefix)), "_", "-")
}

// Title is a word as tables have it: "Running".
func Title(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// TaskState is a task's state in Docker's word.
func TaskState(s typesv1.TaskState) string { return word(s.String(), "TASK_STATE_") }

// Image is an image as people type it: without the default registry, and without the digest if it has a tag.
func Image(ref string, whole bool) string {
	if whole {
		return ref
	}
	name, digest, pinned := strings.Cut(ref, "@")
	slash := strings.LastIndexByte(name, '/')
	if pinned && !strings.Contains(name[slash+1:], ":") {
		return strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/") + "@" + digest
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
}
