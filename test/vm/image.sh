#!/bin/sh
# image.sh FOLDER MIRROR: makes the disk of a Debian machine with Debian's kernel: FOLDER/root.ext4, with kernel and initrd
# beside it. In /srv/debian of the machine lies what our packages, the laboratory and its tests may depend on, which is not
# installed. Needs root, debootstrap, mkfs.ext4 and the mirror.
set -eu
folder=$1 mirror=$2
root=$folder/root

# Step 1: the base system, and what the tests themselves type on a machine.
debootstrap --variant=minbase \
	--include=systemd-sysv,dbus,udev,kmod,zstd,iproute2,ca-certificates,curl,procps,iputils-ping,initramfs-tools \
	bookworm "$root" "$mirror"

# Step 2: the kernel, with an initrd that knows this machine's disk and nothing else: it boots faster.
printf 'MODULES=list\nCOMPRESS=zstd\n' >"$root/etc/initramfs-tools/conf.d/machine"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
cp /etc/resolv.conf "$root/etc/resolv.conf"
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq -y --no-install-recommends install linux-image-"$(chroot "$root" dpkg --print-architecture)"
cp -L "$root"/boot/vmlinuz-* "$folder/kernel"
cp -L "$root"/boot/initrd.img-* "$folder/initrd"

# Step 3: packages for apt on the machine.
mkdir -p "$root/srv/debian" "$root/srv/shoal"
rm -f "$root"/var/cache/apt/archives/*.deb
chroot "$root" apt-get -qq -y --no-install-recommends --download-only install \
	containerd runc nftables conntrack bash-completion iptables e2fsprogs git procps docker.io
mv "$root"/var/cache/apt/archives/*.deb "$root/srv/debian/"
(
	cd "$root/srv/debian"
	for deb in *.deb; do
		dpkg-deb --field "$deb"
		printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)"
	done >Packages
)
printf 'deb [trusted=yes] file:/srv/debian ./\ndeb [trusted=yes] file:/srv/shoal ./\n' >"$root/etc/apt/sources.list"
: >"$root/srv/shoal/Packages"

# Step 4: an address by DHCP, a journal that outlasts a cut of power, and the guest's end of the machine's console.
mkdir -p "$root/var/log/journal"
printf '[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/80-wired.network"
chroot "$root" systemctl -q enable systemd-networkd
cat >"$root/etc/systemd/system/guest.service" <<'UNIT'
[Unit]
Description=Runs what the machine outside asks for
[Service]
ExecStartPre=mkdir -p /run/guest
ExecStartPre=mount -t 9p -o ro,trans=virtio,version=9p2000.L guest /run/guest
ExecStart=/run/guest/guest /dev/virtio-ports/shoal
Environment=HOME=/root
WorkingDirectory=/root
Restart=no
TasksMax=infinity
LimitNOFILE=1048576
[Install]
WantedBy=multi-user.target
UNIT
chroot "$root" systemctl -q enable guest

# Step 5: no trace of this build; an id of its own at the first boot; nothing that calls the outer world by the clock.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/usr/share/doc/* "$root"/usr/share/man/* \
	"$root"/usr/share/locale/* "$root"/etc/resolv.conf "$root"/var/log/*.log
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"
echo vm >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost\n127.0.1.1 vm\n' >"$root/etc/hosts"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

truncate -s 12G "$folder/root.part"
mkfs.ext4 -q -L root -d "$root" "$folder/root.part"
rm -rf "$root"
mv "$folder/root.part" "$folder/root.ext4"
