#!/bin/sh
# {{.Name}}, after its files are there. dpkg says "configure" and the version that it replaces, rpm how many there are now.
set -e
case "$1" in
configure) before=$2 ;;
1) before= ;;
[0-9]*) before=some ;;
*) exit 0 ;; # dpkg takes something back, and nothing had been changed here
esac
{{- if or .User (eq .Process "")}}

# Step 1: who owns what comes below.
if command -v systemd-sysusers >/dev/null; then
	systemd-sysusers {{.Name}}.conf
else
	getent group {{.Name}} >/dev/null || groupadd --system {{.Name}}
{{- if .User}}
	getent passwd {{.Name}} >/dev/null ||
		useradd --system --gid {{.Name}} --home-dir /var/lib/shoal/{{.Process}} --no-create-home --shell /usr/sbin/nologin {{.Name}}
{{- end}}
fi
{{- end}}
{{- if .Tmpfiles}}

# Step 2: the folders that must be there before the first start.
if command -v systemd-tmpfiles >/dev/null; then
	systemd-tmpfiles --create {{.Name}}.conf
fi
{{- end}}

[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
{{- if .Process}}

# Step 3: what runs is replaced; what does not run is not started. Containers run on. The process may wait for other
# machines until it is ready, and an installation must not.
if [ -n "$before" ]; then
	timeout 30 systemctl try-restart {{.Name}}.service ||
		echo "{{.Name}}: not ready after the upgrade yet; 'systemctl status {{.Name}}' says what it waits for" >&2
fi
{{- end}}
exit 0
