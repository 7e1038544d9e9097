package harness

import (
	"context"
	"time"

	"github.com/shoalproject/shoal/test/harness/hostinit"
	"github.com/shoalproject/shoal/test/harness/proc"
)

// Status is a lab's state for people and scripts. Its JSON form is a contract: fields are only ever added.
type Status struct {
	Dir   string       `json:"dir"`
	Hosts []HostStatus `json:"hosts"`
}

// HostStatus tells about one host.
type HostStatus struct {
	Name      string          `json:"name"`
	Role      string          `json:"role"`  // manager or worker
	Power     string          `json:"power"` // on or off
	Addresses []string        `json:"addresses"`
	Dir       string          `json:"dir"` // the host's folder on the outer machine
	Processes []ProcessStatus `json:"processes"`
}

// ProcessStatus tells about a process that runs or should run.
type ProcessStatus struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"` // on the outer machine; 0 while it does not run
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"` // of its present state
	State    string    `json:"state"` // in systemd's words
}

const askLimit = 5 * time.Second

// Status reads the state of every host. A host whose init does not answer is shown without processes.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	state, err := l.load()
	if err != nil {
		return Status{}, err
	}
	outside, err := proc.Outside()
	if err != nil {
		return Status{}, err
	}
	status := Status{Dir: l.dir, Hosts: []HostStatus{}}
	for _, host := range state.Hosts {
		shown := HostStatus{
			Name: host.Name, Role: host.Role, Power: "off", Dir: l.hostDir(host.Name), Processes: []ProcessStatus{},
		}
		for _, prefix := range state.Range.Addresses(host.Number) {
			shown.Addresses = append(shown.Addresses, prefix.Addr().String())
		}
		if namespace, err := l.pidNamespace(host.Name); err == nil {
			shown.Power = "on"
			shown.Processes = l.processes(ctx, host.Name, namespace, outside)
		}
		status.Hosts = append(status.Hosts, shown)
	}
	return status, nil
}

func (l *Lab) processes(ctx context.Context, host, namespace string, outside map[proc.Inside]int) []ProcessStatus {
	shown := []ProcessStatus{}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	client, err := l.client(host)
	if err != nil {
		return shown
	}
	units, err := client.Units(ctx)
	if err != nil {
		return shown // it is being powered off
	}
	for _, unit := range units {
		if !unit.Enabled && unit.State == hostinit.Inactive {
			continue
		}
		shown = append(shown, ProcessStatus{
			Name: unit.Name, PID: outside[proc.Inside{Namespace: namespace, PID: unit.PID}],
			Restarts: unit.Restarts, Since: unit.Since, State: string(unit.State),
		})
	}
	return shown
}
