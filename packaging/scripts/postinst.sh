# Accounts, directories, configuration, units; every step may be repeated, so a half-finished run is simply done again.

make_account() {
    if ! getent passwd "$user" >/dev/null; then
        adduser --system --quiet --group --home "$home" --no-create-home --gecos "$package" "$user"
    fi
    if [ -n "$spool" ]; then
        getent group "$spool_group" >/dev/null || addgroup --system --quiet "$spool_group"
        adduser --quiet "$user" "$spool_group" >/dev/null
    fi
}

make_directories() {
    [ -d "$home" ] || install -d -m 0755 "$home"
    for entry in $directories; do
        # What is set-gid is read by the other services as well.
        case $entry in 2???:*) group=$spool_group ;; *) group=$user ;; esac
        install -d -m "${entry%%:*}" -o "$user" -g "$group" "${entry#*:}"
    done
    if [ -n "$spool" ]; then
        [ -d "${spool%/*}" ] || install -d -m 0755 "${spool%/*}"
        # Set-gid: what one of the services makes in it belongs to the group of all of them.
        install -d -m 2770 -o root -g "$spool_group" "$spool"
    fi
}

protect_configuration() {
    for file in $conffiles; do
        if [ -e "$file" ] && ! dpkg-statoverride --list "$file" >/dev/null; then
            chown "root:$user" "$file"
            chmod 0640 "$file"
        fi
    done
}

enable_units() {
    for unit in $started; do
        deb-systemd-helper unmask "$unit" >/dev/null || true
        # An administrator who disabled a unit finds it disabled after an upgrade.
        if deb-systemd-helper --quiet was-enabled "$unit"; then
            deb-systemd-helper enable "$unit" >/dev/null || true
        else
            deb-systemd-helper update-state "$unit" >/dev/null || true
        fi
    done
}

# The one restart policy: old processes serve until the new files are in place, then each unit is restarted once. SIGTERM
# drains: the API finishes its requests, the fastpath its batches; a running job finishes undisturbed.
start_units() {
    systemd_runs || return 0
    systemctl --system daemon-reload >/dev/null || true
    action=start
    [ -z "$1" ] || action=restart
    # shellcheck disable=SC2086
    deb-systemd-invoke $action $started >/dev/null ||
        say "not everything started. Look at: systemctl status $started"
}

case "$1" in
configure | abort-upgrade | abort-remove | abort-deconfigure)
    make_account
    make_directories
    protect_configuration
    enable_units
    start_units "$2"
    ;;
esac
exit 0
