package executor

import (
	"encoding/hex"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/shoalproject/shoal/services/agent/internal/container"
)

// The labels by which we know our containers. A user's label with this prefix is left out.
const (
	labelPrefix     = "io.shoal."
	labelCluster    = labelPrefix + "cluster"
	labelTask       = labelPrefix + "task"
	labelAttempt    = labelPrefix + "attempt"
	labelSpecHash   = labelPrefix + "spec-hash"
	labelGeneration = labelPrefix + "generation"
	labelService    = labelPrefix + "service"
	labelSlot       = labelPrefix + "slot"
	labelSignal     = labelPrefix + "stop-signal"
	labelIDs        = labelPrefix + "ids"     // the first of its range of user ids; without: the machine's own
	labelName       = labelPrefix + "name"    // of the task, for people
	labelVolume     = labelPrefix + "volume." // and a number: a named volume that it uses
)

// maxLabel is containerd's limit for key and value together.
const maxLabel = 4096

func labelsOf(o container.Origin, user map[string]string, signal string) map[string]string {
	labels := map[string]string{
		labelCluster: o.Cluster, labelTask: o.Task, labelAttempt: strconv.FormatUint(uint64(o.Attempt), 10),
		labelSpecHash: hex.EncodeToString(o.SpecHash), labelGeneration: o.Generation,
		labelService: o.Service, labelSlot: strconv.FormatUint(o.Slot, 10), labelSignal: signal,
	}
	for k, v := range user {
		if k != "" && !strings.HasPrefix(k, labelPrefix) && len(k)+len(v) <= maxLabel {
			labels[k] = v
		}
	}
	maps.DeleteFunc(labels, func(_, v string) bool { return len(v) > maxLabel })
	return labels
}

// ours is containerd's filter for what is our cluster's.
func (e *Executor) ours() string {
	if e.cfg.Cluster == "" {
		return fmt.Sprintf("labels.%q", labelCluster)
	}
	return fmt.Sprintf("labels.%q==%s", labelCluster, e.cfg.Cluster)
}

// idsOf are the ids that a container's stand for.
func idsOf(labels map[string]string) container.IDs {
	first, err := strconv.ParseUint(labels[labelIDs], 10, 32)
	if err != nil {
		return container.IDs{}
	}
	return container.IDs{First: uint32(first)}
}

// originOf is the way back. What can't be read is zero: the loop then treats the container as one without a spec.
func originOf(labels map[string]string) container.Origin {
	o := container.Origin{
		Cluster: labels[labelCluster], Task: labels[labelTask],
		Generation: labels[labelGeneration], Service: labels[labelService],
	}
	if n, err := strconv.ParseUint(labels[labelAttempt], 10, 32); err == nil {
		o.Attempt = uint32(n)
	}
	if n, err := strconv.ParseUint(labels[labelSlot], 10, 64); err == nil {
		o.Slot = n
	}
	if hash, err := hex.DecodeString(labels[labelSpecHash]); err == nil && len(hash) > 0 {
		o.SpecHash = hash
	}
	return o
}
