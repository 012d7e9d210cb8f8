#!/bin/sh
# A lab on this machine, made and removed by a program, for --fleet exec:bootstrap/lab.sh
# The shortest example of a fleet that really makes something.  As root, for isolated hosts.
set -eu
# The run's id is in the request: each run has a lab of its own, and `down` finds it without what `up` printed.
name=$(printf '%s' "$FANOUT_REQUEST" | python3 -c 'import json, sys; print(json.load(sys.stdin)["run"][:40])')
case $1 in
up)
    count=$2
    [ "$count" -gt 0 ] || count=5
    fanout lab up -n "$count" --name "$name" >&2
    fanout lab ls "$name" --hosts
    ;;
down)
    labs=$(fanout lab ls 2>/dev/null)
    case "
$labs" in
    *"
$name "*) fanout lab down "$name" >&2 ;;
    esac
    ;;
esac
