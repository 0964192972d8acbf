# shellcheck shell=bash
# Source this before podman or molecule. Chooses by capability, never by host name: a machine with unified cgroups and
# CAP_SYS_RESOURCE keeps podman's own defaults (also rootless); any other one gets containers.conf beside this file.
_bounding=$(awk '/^CapBnd/ { print $2 }' /proc/self/status)
if [ ! -f /sys/fs/cgroup/cgroup.controllers ] || [ $((0x$_bounding >> 24 & 1)) -eq 0 ]; then
    CONTAINERS_CONF="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/containers.conf"
    export CONTAINERS_CONF
fi
unset _bounding
export MOLECULE_IMAGE="${MOLECULE_IMAGE:-localhost/local/debian12:systemd}"
