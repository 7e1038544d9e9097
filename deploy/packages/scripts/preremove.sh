#!/bin/sh
# {{.Name}}, before its files go. dpkg says what is to come, rpm how many will be left.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;; # an upgrade: the process runs on until the new one takes its place
esac
[ -d /run/systemd/system ] || exit 0
{{- if .Process}}
# rpm knows no purge: with it the machine's part in the cluster ends here.
if [ "$1" = 0 ]; then
	systemctl disable {{.Name}}.service || true
fi
systemctl stop {{.Name}}.service || true
{{- else}}
systemctl stop shoal.target || true
{{- end}}
exit 0
