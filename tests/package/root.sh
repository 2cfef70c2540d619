#!/bin/sh
# Runs a script as root of a copy of this system that is gone afterwards: what is installed there is installed nowhere else.
# Its arguments: the script, and a folder that is seen inside as /mnt.
set -eu
copy=$2/copy
mkdir "$copy"
mount -t tmpfs tmpfs "$copy"
mkdir "$copy/upper" "$copy/work" "$copy/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$copy/upper,workdir=$copy/work" "$copy/root"
mount --bind "$2" "$copy/root/mnt"
mount -t proc proc "$copy/root/proc"
mount --bind /dev "$copy/root/dev"
# Files of its own where the broker writes: a data folder in memory is as good for this.
mount -t tmpfs tmpfs "$copy/root/tmp"
cp "$1" "$copy/root/tmp/inside.sh"
exec chroot "$copy/root" /bin/sh /tmp/inside.sh
