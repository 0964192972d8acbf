#!/bin/sh
# Maintainer script of @package@. One text serves all packages: packaging/scripts in the source tree.
# shellcheck disable=SC2034,SC2016,SC2329
set -e

package='@package@'
user='@user@'
home='@home@'
prefix='@prefix@'
started='@started@'
units='@units@'
conffiles='@conffiles@'
directories='@directories@'
keep='@keep@'
spool='@spool@'
spool_group='@spool_group@'
spool_peers='@spool_peers@'

say() { echo "$package: $*" >&2; }
systemd_runs() { [ -d /run/systemd/system ]; }

