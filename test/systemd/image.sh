#!/bin/sh
# image.sh FOLDER MIRROR: makes a Debian machine with systemd and apt, as a fresh installation has it: FOLDER/root.tar, and
# in FOLDER/debs what our packages may depend on, which is not installed. Needs root, debootstrap and the mirror.
set -eu
folder=$1 mirror=$2
root=$folder/root
mkdir -p "$folder/debs"

# Step 1: the base system, and what the tests themselves type on a machine.
debootstrap --variant=minbase \
	--include=systemd-sysv,dbus,iproute2,ca-certificates,curl,procps,iputils-ping \
	bookworm "$root" "$mirror"

# Step 2: the packages that apt on a machine is to fetch by itself, with all that they need.
cp /etc/resolv.conf "$root/etc/resolv.conf"
rm -f "$root"/var/cache/apt/archives/*.deb
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq -y --no-install-recommends --download-only install \
	containerd runc nftables conntrack kmod bash-completion iptables
mv "$root"/var/cache/apt/archives/*.deb "$folder/debs/"

# Step 3: no trace of this build; an id of its own at each machine's first boot; nothing that calls the outer world by
# the clock. The laboratory has no mirror but a folder (repository.go).
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/usr/share/doc/* "$root"/usr/share/man/* \
	"$root"/usr/share/locale/* "$root"/var/log/* "$root"/dev/* "$root"/etc/resolv.conf "$root"/etc/hostname
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
printf 'deb [trusted=yes] file:/srv/debian ./\ndeb [trusted=yes] file:/srv/shoal ./\n' >"$root/etc/apt/sources.list"
mkdir -p "$root/srv/debian" "$root/srv/shoal" "$root/etc/containerd"

tar --numeric-owner -C "$root" -cf "$folder/root.tar.part" .
rm -rf "$root"
mv "$folder/root.tar.part" "$folder/root.tar"
