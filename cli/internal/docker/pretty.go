package docker

// The templates of `inspect --pretty`, in Docker's form.
const (
	PrettyNode = `ID:			{{.ID}}
Hostname:		{{.Description.Hostname}}
Joined at:		{{.CreatedAt}}
Status:
 State:			{{title .Status.State}}
{{- if .Status.Message}}
 Message:		{{.Status.Message}}{{end}}
 Availability:		{{title .Spec.Availability}}
 Address:		{{.Status.Addr}}
{{- if .ManagerStatus}}
Manager Status:
 Raft Status:		{{title .ManagerStatus.Reachability}}
 Leader:		{{if .ManagerStatus.Leader}}Yes{{else}}No{{end}}{{end}}
Labels:
{{- range $k, $v := .Spec.Labels}}
 - {{$k}}{{if $v}}={{$v}}{{end}}{{end}}
{{- if .Spec.Taints}}
Taints:
{{- range .Spec.Taints}}
 - {{.Key}}{{if .Value}}={{.Value}}{{end}}:{{.Effect}}{{end}}{{end}}
Platform:
 Operating System:	{{.Description.Platform.OS}}
 Architecture:		{{.Description.Platform.Architecture}}
Engine Version:		{{.Description.Engine.EngineVersion}}
{{- range .Description.Disks}}
Disk of {{.Name}}:	{{"\t"}}{{size .Free}} of {{size .Total}} free{{end}}
{{- if .Description.ImagesRemoved}}
Images removed:		{{.Description.ImagesRemoved}} ({{size .Description.ImagesRemovedBytes}}), as the disk was full{{end}}`

	PrettyService = `ID:		{{.ID}}
Name:		{{.Spec.Name}}
{{- if .Spec.Labels}}
Labels:
{{- range $k, $v := .Spec.Labels}}
 {{$k}}={{$v}}{{end}}{{end}}
Service Mode:	{{with .Spec.Mode}}{{if .Global}}Global{{else if .GlobalJob}}Global Job{{else if .ReplicatedJob}}Replicated Job
 Max Concurrent:	{{.ReplicatedJob.MaxConcurrent}}
 Total Completions:	{{.ReplicatedJob.TotalCompletions}}{{else}}Replicated
 Replicas:	{{.Replicated.Replicas}}{{end}}{{end}}
{{- with .Spec.Autoscale}}
Autoscale:
 Bounds:	{{.Min}} to {{.Max}}
 Target:	{{.Target}}{{end}}
{{- with .Load}}
 Load:		{{.}}{{end}}
{{- with .Scale}}
 Tasks:		{{.Replicas}}
 Last change:	{{.Reason}} ({{.ChangedAt}})
{{- if .Pending}}
 Pending:	{{.Pending}}{{end}}{{end}}
{{- if .Spec.Priority}}
Priority:	{{.Spec.Priority}}{{end}}
{{- with .Spec.Job}}
Job:
{{- if .Deadline}}
 Deadline:	{{span .Deadline}}{{end}}
{{- with .Schedule}}
 Schedule:	{{.Cron}}{{if .TimeZone}} ({{.TimeZone}}){{end}}
 Concurrency:	{{.Concurrency}}{{end}}{{end}}
{{- if .Spec.DependsOn}}
Depends On:	{{join .Spec.DependsOn ", "}}{{end}}
{{- if .Spec.EndpointSpec.AllowFrom}}
Allow From:	{{join .Spec.EndpointSpec.AllowFrom ", "}}{{end}}
{{- with .JobStatus}}
JobStatus:
 Run:		{{.JobIteration.Index}}
 State:		{{.State}}
 Message:	{{.Message}}{{end}}
{{- with .UpdateStatus}}
UpdateStatus:
 State:		{{.State}}
{{- if .StartedAt}}
 Started:	{{.StartedAt}}{{end}}
{{- if .CompletedAt}}
 Completed:	{{.CompletedAt}}{{end}}
 Message:	{{.Message}}{{end}}
{{- with .RebalanceStatus}}
RebalanceStatus:
 State:		{{.State}}
 Message:	{{.Message}}{{end}}
Placement:
{{- with .Spec.TaskTemplate.Placement}}
{{- if .Constraints}}
 Constraints:	{{join .Constraints ", "}}{{end}}
{{- range .Preferences}}
 Preference:	spread={{.Spread.SpreadDescriptor}}{{end}}
{{- if .Strategy}}
 Strategy:	{{.Strategy}}{{end}}
{{- if .MaxReplicas}}
 Max Replicas Per Node:	{{.MaxReplicas}}{{end}}
{{- range .Affinities}}
 {{if .Anti}}Anti-affinity{{else}}Affinity{{end}}:	{{if .Service}}service={{.Service}}{{else}}label={{.Label}}{{end}}{{if .Topology}},topology={{.Topology}}{{end}}{{if .Preferred}},preferred=true{{end}}{{end}}
{{- range .Tolerations}}
 Toleration:	{{if .Key}}{{.Key}}{{if .Value}}={{.Value}}{{end}}{{else}}*{{end}}{{end}}{{end}}
{{- with .Spec.UpdateConfig}}
UpdateConfig:` + prettyRollout + `{{end}}
{{- with .Spec.RollbackConfig}}
RollbackConfig:` + prettyRollout + `{{end}}
ContainerSpec:
{{- with .Spec.TaskTemplate.ContainerSpec}}
 Image:		{{.Image}}
{{- if .Command}}
 Entrypoint:	{{join .Command " "}}{{end}}
{{- if .Args}}
 Args:		{{join .Args " "}}{{end}}
{{- if .Env}}
 Env:		{{join .Env " "}}{{end}}
{{- if .User}}
 User:		{{.User}}{{end}}
{{- if .Dir}}
 Dir:		{{.Dir}}{{end}}{{end}}
Resources:
{{- with .Spec.TaskTemplate.Resources}}
{{- with .Reservations}}
 Reservations:	{{template "amount" .}}{{end}}
{{- with .Limits}}
 Limits:	{{template "amount" .}}{{end}}{{end}}
Networks:	{{range .Spec.TaskTemplate.Networks}}{{.Target}} {{end}}
Endpoint Mode:	{{.Endpoint.Spec.Mode}}
{{- if .Endpoint.Ports}}
Ports:
{{- range .Endpoint.Ports}}
 PublishedPort = {{.PublishedPort}}
  Protocol = {{.Protocol}}
  TargetPort = {{.TargetPort}}
  PublishMode = {{.PublishMode}}{{end}}{{end}}
{{- define "amount"}}{{if .NanoCPUs}}{{cpus .NanoCPUs}} CPUs {{end}}{{if .MemoryBytes}}{{size .MemoryBytes}} {{end}}{{if .Pids}}{{.Pids}} processes {{end}}{{if .DiskBytes}}{{size .DiskBytes}} of disk {{end}}
{{- range .GenericResources}}{{with .DiscreteResourceSpec}}{{.Kind}}={{.Value}} {{end}}{{with .NamedResourceSpec}}{{.Kind}}={{.Value}} {{end}}{{end}}{{end}}`

	prettyRollout = `
 Parallelism:	{{.Parallelism}}
{{- if .Delay}}
 Delay:		{{span .Delay}}{{end}}
 On failure:	{{.FailureAction}}
{{- if .Monitor}}
 Monitoring Period: {{span .Monitor}}{{end}}
 Max failure ratio: {{.MaxFailureRatio}}
{{- if .ProgressDeadline}}
 Progress deadline: {{span .ProgressDeadline}}{{end}}
 Update order:	{{.Order}}`
)
