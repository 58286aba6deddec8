# Runs a command as the first process of a root that only one folder of can be written to:
# ROOT USER GROUP FOLDER WRITABLE COMMAND...
root=$1 user=$2 group=$3 folder=$4 writable=$5
shift 5
# In a chroot, / is no mount. Who made that has a mount namespace for it, as .ci/bare does.
mount --make-rprivate / 2>/dev/null || true
mount --bind "$root" "$root"
mount --bind "$root$writable" "$root$writable"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
exec unshare --root="$root" --wd="$folder" --setgid="$group" --setuid="$user" "$@"
