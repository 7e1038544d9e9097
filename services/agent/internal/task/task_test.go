package task

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	typesv1 "github.com/shoalproject/shoal/proto/shoal/types/v1"
)

// TestScripts holds the machine to the scripts in testdata: each line of input is something that happens, the output is
// what is reported and what is to be done.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var l *Life
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "task" {
				l = &Life{}
				for _, arg := range d.CmdArgs {
					if arg.Key == "state" {
						l.State = stateOf(t, d, arg.Vals[0])
					}
				}
			}
			var out strings.Builder
			for _, line := range strings.Split(d.Input, "\n") {
				if line = strings.TrimSpace(line); line != "" {
					before := *l
					happen(t, d, l, line)
					told(&out, l, before)
				}
			}
			return out.String()
		})
	})
}

func happen(t *testing.T, d *datadriven.TestData, l *Life, line string) {
	verb, arg, _ := strings.Cut(line, " ")
	var code int32
	_, _ = fmt.Sscanf(arg, "%d", &code)
	exit := &Exit{Code: code, OOM: strings.Contains(arg, "oom")}
	switch verb {
	case "desired":
		l.Desired(stateOf(t, d, arg))
	case "dropped":
		l.Dropped()
	case "found-made":
		l.Found(Made, true, nil)
	case "found-running":
		l.Found(Running, true, nil)
	case "found-ended":
		l.Found(Ended, true, exit)
	case "was-asked":
		l.WasAsked()
	case "prepared":
		l.Prepared()
	case "started":
		l.Started()
	case "removed":
		if arg == "" {
			exit = nil
		}
		l.Removed(exit)
	case "held":
		l.Held(arg)
	case "failed":
		l.Failed(arg)
	case "progress":
		l.Progress(arg)
	case "exited":
		l.Exited(*exit)
	case "checked":
		l.Checked(strings.Contains(arg, "health"), strings.Contains(arg, "readiness"))
	case "opening":
		l.Opening()
	case "was-unhealthy":
		l.WasUnhealthy("unhealthy: " + arg)
	case "healthy":
		l.Looked(Healthy, "")
	case "unhealthy":
		l.Looked(Unhealthy, "unhealthy: "+arg)
	case "answers":
		l.Answers(true, "")
	case "refuses":
		l.Answers(false, arg)
	case "mesh-passed":
		l.MeshPassed()
	case "bound-over":
		l.BoundOver()
	case "drains":
		l.Drains()
	case "drain-over":
		l.DrainOver()
	case "retry":
		l.RetryDue()
	case "again":
		if !l.Done() {
			d.Fatalf(t, "it is not done")
		}
		l.Again()
	default:
		d.Fatalf(t, "unknown event %q", line)
	}
}

// told lets the machine go on and writes down every step that it asks for, with what it reports at that moment.
func told(out *strings.Builder, l *Life, before Life) {
	for {
		a := l.Next()
		if l.State != before.State || l.Message != before.Message || l.Ready != before.Ready {
			fmt.Fprintf(out, "report %s", strings.ToLower(strings.TrimPrefix(l.State.String(), "TASK_STATE_")))
			if l.Ready {
				out.WriteString(" ready")
			}
			if l.Message != "" {
				fmt.Fprintf(out, " %q", l.Message)
			}
			out.WriteString("\n")
		}
		if a == None {
			return
		}
		before = *l
		fmt.Fprintf(out, "do %s\n", a)
		if a == Forget {
			return
		}
	}
}

func stateOf(t *testing.T, d *datadriven.TestData, name string) typesv1.TaskState {
	v, ok := typesv1.TaskState_value["TASK_STATE_"+strings.ToUpper(name)]
	if !ok {
		d.Fatalf(t, "unknown state %q", name)
	}
	return typesv1.TaskState(v)
}
