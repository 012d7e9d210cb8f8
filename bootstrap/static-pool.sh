#!/bin/sh
# A pool of machines that is always there, for --fleet exec:bootstrap/static-pool.sh
# $POOL is a hosts file (pool.txt without it), and stays as it is: nothing is made, and nothing removed.
set -eu
pool=${POOL:-pool.txt}
case $1 in
up)
    [ -r "$pool" ] || { echo "cannot read $pool: write a host a line, or set POOL" >&2; exit 1; }
    grep -Ev '^[[:space:]]*(#|$)' "$pool" | if [ "$2" -gt 0 ]; then head -n "$2"; else cat; fi
    ;;
down)
    cat >/dev/null
    ;;
esac
