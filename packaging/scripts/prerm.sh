case "$1" in
remove | deconfigure)
    if systemd_runs; then
        # Timers first, so that no job begins while its service is being stopped.
        # shellcheck disable=SC2086
        deb-systemd-invoke stop $started $units >/dev/null || true
    fi
    ;;
esac
exit 0
