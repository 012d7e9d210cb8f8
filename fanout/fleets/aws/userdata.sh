# Prepares a machine of a fanout run, as root and early in its boot, before its sshd starts.  Plain sh, run again at
# every boot.  Above this text stand, as assignments:
#   RUN        the run's id                        LOGIN  the public key that may log in, as LOGIN_USER
#   EXPIRES    when it ends, seconds of the epoch  CA     the private key that signs host keys of the run
#   TTL, IDLE  seconds                             CA_PUBLIC  its public half
# What always holds: the timer is armed before anything else; sshd shows the run's mark only when all is done.

FILES=/etc/ssh/fanout
CONFIG=${FANOUT_SSHD_CONFIG:-/etc/ssh/sshd_config}
MARK=fanout-$RUN

uptime_now() {
    read -r now rest < /proc/uptime
    now=${now%%.*}
}

# A clock that is wrong must not keep the machine longer than its ttl.
left=$((EXPIRES - $(date +%s)))
[ "$left" -le "$TTL" ] || left=$TTL
[ "$left" -ge 60 ] || left=60
uptime_now
end=$((now + left))

arm() {
    shutdown -P "+$(((left + 59) / 60))" "fanout: the time of run $RUN is over"
}

# So early in the boot there may be nobody yet who takes the order: `watch` gives it again, and keeps the time itself.
# It also powers off a machine that has had no agent for IDLE seconds, since its boot or since the last one ended.
watch() {
    seen=$now
    while sleep 2; do
        uptime_now
        [ -n "$armed" ] || { arm && armed=1; }
        set -- /tmp/fanout-"$RUN"-*
        [ ! -e "$1" ] || seen=$now
        if [ "$now" -ge "$end" ] || [ "$((now - seen))" -ge "$IDLE" ]; then
            shutdown -P now || poweroff -f
            return
        fi
    done
}

armed=
arm < /dev/null > /dev/null 2>&1 && armed=1
(trap '' HUP; watch) < /dev/null > /dev/null 2>&1 &

set -eu
umask 022
mkdir -p "$FILES" /run/sshd

if ! command -v python3 > /dev/null; then
    { apt-get update && apt-get install -y python3; } || dnf install -y python3 || yum install -y python3 \
        || apk add python3
fi

# The host key is made here and stays here.  The CA's key is in memory for as long as it takes to sign.
if [ ! -e "$FILES/host_key-cert.pub" ]; then
    rm -f "$FILES/host_key" "$FILES/host_key.pub"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$FILES/host_key"
    addresses=$(hostname -I | tr -s ' \n' ',,')
    [ -n "${addresses%,}" ] # a certificate that names no address would be good for all
    keep=$(mktemp -d /dev/shm/fanout.XXXXXX)
    (umask 077 && printf '%s\n' "$CA" > "$keep/ca" && printf '%s\n' "$CA_PUBLIC" > "$keep/ca.pub")
    ssh-keygen -q -s "$keep/ca" -h -I "$MARK" -n "${addresses%,}" "$FILES/host_key.pub" || { rm -rf "$keep"; exit 1; }
    rm -rf "$keep"
fi
printf '%s\n' "$LOGIN" > "$FILES/authorized_keys"

# The first word on a matter counts for sshd: ours go before what is there.
if ! grep -qs "^VersionAddendum $MARK\$" "$CONFIG"; then
    {
        echo "HostKey $FILES/host_key"
        echo "HostCertificate $FILES/host_key-cert.pub"
        echo "AuthorizedKeysFile .ssh/authorized_keys $FILES/authorized_keys"
        echo "MaxStartups 200:30:400"
        echo "MaxSessions 100"
        [ "$LOGIN_USER" != root ] || echo "PermitRootLogin prohibit-password"
        echo "VersionAddendum $MARK"
    } > "$CONFIG.fanout"
    sshd=$(command -v sshd || echo /usr/sbin/sshd)
    # Only since OpenSSH 9.8; a word that it does not know would keep sshd from starting.
    cp "$CONFIG.fanout" "$CONFIG.penalties"
    echo "PerSourcePenalties no" >> "$CONFIG.penalties"
    if "$sshd" -t -f "$CONFIG.penalties" 2> /dev/null; then
        mv "$CONFIG.penalties" "$CONFIG.fanout"
    else
        rm "$CONFIG.penalties"
    fi
    # ... but for MaxStartups, where older ones take the last.
    grep -vi '^[[:space:]]*MaxStartups' "$CONFIG" >> "$CONFIG.fanout" || :
    "$sshd" -t -f "$CONFIG.fanout"
    mv "$CONFIG.fanout" "$CONFIG"

    # Where sshd runs already.  Once: nobody can connect while it starts again, and it may show the mark by then.
    systemctl --no-block try-reload-or-restart ssh.service 2> /dev/null \
        || systemctl --no-block try-reload-or-restart sshd.service 2> /dev/null \
        || pkill -HUP -o -x sshd || :
fi
