package docker

import typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"

// UpdateConfig says how changes are rolled out.
type UpdateConfig struct {
	Parallelism      uint64
	Delay            *int64 `json:",omitempty"`
	FailureAction    string
	Monitor          *int64 `json:",omitempty"`
	MaxFailureRatio  float32
	Order            string
	ProgressDeadline *int64 `json:",omitempty"`
}

// UpdateStatus tells of the last update.
type UpdateStatus struct {
	State       string
	StartedAt   string `json:",omitempty"`
	CompletedAt string `json:",omitempty"`
	Message     string
	// SpecVersion is the version that it leads to, FromVersion the one that it came from.
	SpecVersion, FromVersion uint64 `json:",omitempty"`
}

// SpecRecord is an earlier task template.
type SpecRecord struct {
	Version      uint64
	TaskTemplate TaskSpec
}

func updateConfigOf(u *typesv1.UpdateConfig) *UpdateConfig {
	if u == nil {
		return nil
	}
	out := &UpdateConfig{
		Parallelism: 1, Delay: nanos(u.GetDelay()), FailureAction: "pause", Monitor: nanos(u.GetMonitor()), MaxFailureRatio: u.GetMaxFailureRatio(),
		Order: "stop-first", ProgressDeadline: nanos(u.GetProgressDeadline()),
	}
	if u.Parallelism != nil {
		out.Parallelism = u.GetParallelism()
	}
	if u.GetOrder() == typesv1.UpdateOrder_UPDATE_ORDER_START_FIRST {
		out.Order = "start-first"
	}
	if u.GetFailureAction() != typesv1.FailureAction_FAILURE_ACTION_UNSPECIFIED {
		out.FailureAction = word(u.GetFailureAction().String(), "FAILURE_ACTION_")
	}
	return out
}

func updateStatusOf(u *typesv1.UpdateStatus) *UpdateStatus {
	if u.GetState() == typesv1.UpdateState_UPDATE_STATE_UNSPECIFIED {
		return nil
	}
	return &UpdateStatus{
		State:     UpdateState(u.GetState()),
		StartedAt: stamp(u.GetStartedAt()), CompletedAt: stamp(u.GetCompletedAt()), Message: u.GetMessage(),
		SpecVersion: u.GetSpecVersion(), FromVersion: u.GetFromVersion(),
	}
}

// RebalanceStatus is how far a request to even out the tasks is.
type RebalanceStatus struct {
	State       string
	Moved       uint64
	Message     string
	StartedAt   string `json:",omitempty"`
	CompletedAt string `json:",omitempty"`
}

func rebalanceStatusOf(r *typesv1.RebalanceStatus) *RebalanceStatus {
	if r == nil {
		return nil
	}
	return &RebalanceStatus{
		State: word(r.GetState().String(), "REBALANCE_STATE_"), Moved: r.GetMoved(), Message: r.GetMessage(),
		StartedAt: stamp(r.GetStartedAt()), CompletedAt: stamp(r.GetCompletedAt()),
	}
}

// UpdateState is Docker's word for how far an update is, which has underlines: "rollback_completed".
func UpdateState(s typesv1.UpdateState) string { return underlined(word(s.String(), "UPDATE_STATE_")) }
