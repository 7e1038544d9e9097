package command

// The blocks of `inspect --pretty`, in Docker's form.
const (
	prettyNode = `ID:			{{.ID}}
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
Platform:
 Operating System:	{{.Description.Platform.OS}}
 Architecture:		{{.Description.Platform.Architecture}}
Engine Version:		{{.Description.Engine.EngineVersion}}`

	prettyService = `ID:		{{.ID}}
Name:		{{.Spec.Name}}
{{- if .Spec.Labels}}
Labels:
{{- range $k, $v := .Spec.Labels}}
 {{$k}}={{$v}}{{end}}{{end}}
Service Mode:	Replicated
 Replicas:	{{.Spec.Mode.Replicated.Replicas}}
{{- if .UpdateStatus}}
UpdateStatus:
 State:		{{.UpdateStatus.State}}
 Message:	{{.UpdateStatus.Message}}{{end}}
{{- with .Spec.UpdateConfig}}
UpdateConfig:
 Parallelism:	{{.Parallelism}}
 Update order:	{{.Order}}{{end}}
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
Networks:	{{range .Spec.TaskTemplate.Networks}}{{.Target}} {{end}}
Endpoint Mode:	{{.Endpoint.Spec.Mode}}
{{- if .Endpoint.Ports}}
Ports:
{{- range .Endpoint.Ports}}
 PublishedPort = {{.PublishedPort}}
  Protocol = {{.Protocol}}
  TargetPort = {{.TargetPort}}
  PublishMode = {{.PublishMode}}{{end}}{{end}}`
)
