package decide_test

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/shoalproject/shoal/internal/state"
	"github.com/shoalproject/shoal/internal/testx/chart"
	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
	"github.com/shoalproject/shoal/services/scheduler/internal/decide"
)

// dayStep is the time between two looks at the cluster.
const dayStep = 5 * time.Minute

// dayFigures is what a day looks like.
type dayFigures struct {
	told    map[string]int      // what has happened
	waiting map[string]struct{} // tasks that are wanted and do not run
	made    int                 // tasks

	pending, moves, least, median, most []chart.Point
	madeBefore, worst                   int
}

// note follows a task.
func (d *day) note(t *typesv1.Task) {
	id := t.GetMeta().GetId()
	if d.s.Task(id) == nil {
		d.made++
	}
	delete(d.waiting, id)
	if dec := t.GetDecided(); dec.GetDesired() <= typesv1.TaskState_TASK_STATE_RUNNING && !dec.GetAbandoned() &&
		!state.Terminal(t.GetObserved().GetState()) && t.GetObserved().GetState() != typesv1.TaskState_TASK_STATE_RUNNING {
		d.waiting[id] = struct{}{}
	}
	d.worst = max(d.worst, len(d.waiting))
}

// look takes the figures of this moment.
func (d *day) look() {
	at := d.now.Sub(start()).Hours()
	var loads []float64
	for n := range d.s.Nodes() {
		if n.GetStatus().GetState() == up && n.GetSpec().GetAvailability() == active {
			have := n.GetStatus().GetDescription().GetMemoryBytes()
			loads = append(loads, 100*float64(d.used[n.GetMeta().GetId()])/float64(have))
		}
	}
	slices.Sort(loads)
	d.least = append(d.least, chart.Point{X: at, Y: loads[0]})
	d.median = append(d.median, chart.Point{X: at, Y: loads[len(loads)/2]})
	d.most = append(d.most, chart.Point{X: at, Y: loads[len(loads)-1]})
	d.pending = append(d.pending, chart.Point{X: at, Y: float64(d.worst)})
	d.moves = append(d.moves, chart.Point{X: at, Y: float64(d.made - d.madeBefore)})
	d.madeBefore, d.worst = d.made, len(d.waiting)
}

// draw writes the figures of a day into a folder.
func (d *day) draw(folder string) {
	if folder == "" {
		return
	}
	write(d.t, folder, "day-load.svg", chart.Chart{Title: "Load per node: memory reserved, of the nodes that take tasks", X: "hours", Y: "percent", StepX: 4,
		Lines: []chart.Line{{Name: "least", Points: d.least}, {Name: "median", Points: d.median}, {Name: "most", Points: d.most}}})
	write(d.t, folder, "day-pending.svg", chart.Chart{Title: "Tasks that are wanted and do not run, the most within five minutes", X: "hours", Y: "tasks", LogY: true, StepX: 4,
		Lines: []chart.Line{{Name: "pending", Points: d.pending}}})
	write(d.t, folder, "day-moves.svg", chart.Chart{Title: "Tasks made within five minutes", X: "hours", Y: "tasks", LogY: true, StepX: 4,
		Lines: []chart.Line{{Name: "made", Points: d.moves}}})
}

func write(t *testing.T, folder, name string, c chart.Chart) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name), c.SVG(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestGrowth draws what a decision from nothing costs against the number of nodes and of tasks, the median of five; without a folder to draw into it does nothing.
func TestGrowth(t *testing.T) {
	if *figuresFlag == "" {
		t.Skip("-figures names no folder")
	}
	fill := func(nodes, tasks int, constrained bool) float64 {
		s := shape{nodes, 100, tasks / 100, constrained}
		snap := s.snapshot()
		var taken []float64
		for range 5 {
			runtime.GC() // what was before is not part of it
			used := cpu()
			if p := decide.NewDecider(1<<30).Decide(snap, start(), ids()); len(p.Puts) != tasks {
				t.Fatalf("%d tasks", len(p.Puts))
			}
			taken = append(taken, float64((cpu()-used).Microseconds())/1000)
		}
		slices.Sort(taken)
		return taken[len(taken)/2]
	}
	var nodes, tasks []chart.Line
	for _, constrained := range []bool{false, true} {
		name := map[bool]string{false: "any node will do", true: "a third will do"}[constrained]
		byNodes, byTasks := chart.Line{Name: name}, chart.Line{Name: name}
		for _, n := range []int{100, 300, 1_000, 3_000, 10_000, 30_000, 100_000} {
			if n >= 1_000 {
				byNodes.Points = append(byNodes.Points, chart.Point{X: float64(n), Y: fill(n, 100_000, constrained)})
			}
			byTasks.Points = append(byTasks.Points, chart.Point{X: float64(n), Y: fill(10_000, n, constrained)})
		}
		nodes, tasks = append(nodes, byNodes), append(tasks, byTasks)
	}
	write(t, *figuresFlag, "fill-nodes.svg", chart.Chart{Title: "100,000 tasks of 100 services from nothing: CPU time against nodes", X: "nodes", Y: "milliseconds of CPU time",
		LogX: true, LogY: true, Lines: nodes})
	write(t, *figuresFlag, "fill-tasks.svg", chart.Chart{Title: "Tasks of 100 services on 10,000 nodes from nothing: CPU time against tasks", X: "tasks", Y: "milliseconds of CPU time",
		LogX: true, LogY: true, Lines: tasks})
	for _, l := range append(nodes, tasks...) {
		t.Logf("%s: %.0f", l.Name, l.Points)
	}
}
