# What was measured is never deleted by a package manager: a disk queue or a local object store that holds anything
# stays, with the account that owns it. Everything else goes.

kept=''

# What the API remembers of the spool (received) and of the object store (cache) is no measurement.
holds_something() {
    [ -d "$1" ] && [ -n "$(find "$1" \( -path "$1/received" -o -path "$1/cache" \) -prune -o \
        -type f -size +0 ! -name '*.tmp' -print -quit)" ]
}

a_peer_is_installed() {
    for peer in $spool_peers; do
        case "$(dpkg-query --show --showformat '${db:Status-Status}' "$peer" 2>/dev/null)" in
        '' | not-installed | config-files) ;;
        *) return 0 ;;
        esac
    done
    return 1
}

remove_spool() {
    { [ -n "$spool" ] && [ -d "$spool" ] && ! a_peer_is_installed; } || return 0
    if holds_something "$spool"; then
        kept="$kept $spool"
        count=$(find "$spool" -type f -name '*.post' | wc -l)
        say "kept $spool: it holds $count measurements that the object store does not have yet."
        say "To archive them: apt install fastpath ooni-api, then systemctl start ooni-api-uploader until none is left."
        say "To give them up: rm -r $spool"
    else
        rm -rf "$spool"
    fi
}

remove_directories() {
    for path in $keep; do
        if holds_something "$path"; then
            kept="$kept $path"
            say "kept $path: it is not empty. To give it up: rm -r $path"
        fi
    done
    for entry in $directories; do
        path=${entry#*:}
        case " $kept " in
        *" $path "*) ;;
        *) rm -rf "$path" ;;
        esac
    done
    for path in "$home" "${spool%/*}"; do
        [ -z "$path" ] || [ ! -d "$path" ] || rmdir --ignore-fail-on-non-empty "$path"
    done
}

remove_account() {
    if [ -n "$kept" ]; then
        say "kept the account $user, whose files those are."
        return 0
    fi
    ! getent passwd "$user" >/dev/null || userdel "$user" || say "the account $user is in use and stays"
    ! getent group "$user" >/dev/null || groupdel "$user" || true
    if [ -n "$spool" ] && [ ! -d "$spool" ]; then
        members=$(getent group "$spool_group" | cut -d: -f4)
        if [ -z "$members" ] && getent group "$spool_group" >/dev/null; then
            groupdel "$spool_group" || true
        fi
    fi
}

case "$1" in
remove)
    rm -rf "$prefix"
    ! systemd_runs || systemctl --system daemon-reload >/dev/null || true
    ;;
purge)
    if command -v deb-systemd-helper >/dev/null; then
        # shellcheck disable=SC2086
        deb-systemd-helper purge $started >/dev/null || true
    fi
    for unit in $started; do
        rm -f "/var/lib/systemd/timers/stamp-$unit"
    done
    remove_spool
    remove_directories
    remove_account
    ! systemd_runs || systemctl --system daemon-reload >/dev/null || true
    ;;
esac
exit 0
