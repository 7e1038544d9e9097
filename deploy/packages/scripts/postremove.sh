#!/bin/sh
# {{.Name}}, after its files are gone. dpkg says why, rpm how many are left. Data stays: only a person knows whether it is
# needed, and a machine whose containers run may get its process back.
set -e
case "$1" in
remove | purge | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
fi
[ "$1" != remove ] || exit 0
{{if .Process}}
rm -f /etc/systemd/system/*.wants/{{.Name}}.service
left=
for name in /etc/shoal/{{.Process}}.yaml /var/lib/shoal/{{.Process}}; do
	[ ! -e "$name" ] || left="$left $name"
done
rmdir /var/lib/shoal/{{.Process}} 2>/dev/null && left=${left% /var/lib/shoal/{{.Process}}} || true
if [ -n "$left" ]; then
	echo "{{.Name}}: left, so that this machine can come back to its cluster:$left"
	echo "{{.Name}}: to come back: install it again, then systemctl enable --now {{.Name}}; to remove it for ever: rm -r$left"
fi
{{- if eq .Process "agent"}}
if [ -n "$left" ]; then
	echo "{{.Name}}: this machine has not left its cluster, and its containers run on; to end them, install the packages" \
		"again and run 'shoal leave --force'"
else
	rm -f /run/shoal/boot-id
	rmdir /run/shoal/containers /run/shoal/netns 2>/dev/null || true
fi
{{- end}}
{{- if eq .Process "meshproxy"}}
if [ -n "$left" ]; then
	echo "{{.Name}}: the containers' networks stay in the kernel until the next boot"
fi
rm -f /run/shoal/mesh/boot-id /run/shoal/mesh/mesh.sock
rmdir /run/shoal/mesh 2>/dev/null || true
{{- end}}
{{- else}}
if [ -e /var/lib/shoal/machine-id ]; then
	echo "{{.Name}}: left, the machine's name in its cluster: /var/lib/shoal/machine-id"
	echo "{{.Name}}: if it shall not come back: rm -r /etc/shoal /var/lib/shoal"
fi
# What is empty is nobody's. The users and groups stay: files may still be theirs.
rmdir /etc/shoal /var/lib/shoal /etc/systemd/system/shoal.target.wants 2>/dev/null || true
{{- end}}
rmdir /run/shoal 2>/dev/null || true
exit 0
