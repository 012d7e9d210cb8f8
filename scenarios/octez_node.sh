#!/bin/sh
# What runs on every machine: it knows who it is (FANOUT_ID, FANOUT_NAME, FANOUT_ADDRESS) and who the others are
# (FANOUT_NETWORK, a JSON file), differs by its id, and says with `fanout` what the others and the user must know.
set -e
level=0
bake() { level=$((level + 1)); echo "head is now $level"; }   # a daemon's log: stays on this machine

fanout publish addresses "$FANOUT_NAME=$FANOUT_ADDRESS"
peers=$(fanout collect addresses --count "$1" | wc -l)
fanout barrier wired                                          # nobody goes on before all know the others

case $FANOUT_ID in
0)  # the baker: makes a few blocks, then tells the one who waits for it
    for _ in 1 2 3; do bake; done
    fanout signal protocol-active "$level"
    ;;
1)  # this client must not inject before the protocol is active
    level=$(fanout wait protocol-active)
    fanout report "injected an operation at level $level" level="$level"
    fanout signal injected
    ;;
*)  # observers only follow
    fanout wait injected >/dev/null
    ;;
esac

fanout metric peers "$peers"
fanout barrier finished
