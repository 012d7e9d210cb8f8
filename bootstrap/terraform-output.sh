#!/bin/sh
# Machines that Terraform makes, for --fleet exec:bootstrap/terraform-output.sh
# In $TERRAFORM_DIR (the current folder without it) is a configuration with a variable `machines`, and an output
# `hosts`: a list of objects with `address`, and what else a hosts file's JSON lines have (`name`, `user`, `port`,
# `role`, `relay`, `host_keys`).  Leave `timeout=` room for it: exec:bootstrap/terraform-output.sh,timeout=30m
set -eu
tf() { terraform -chdir="${TERRAFORM_DIR:-.}" "$@"; }
case $1 in
up)
    tf init -input=false -no-color >&2
    if [ "$2" -gt 0 ]; then
        tf apply -auto-approve -input=false -no-color -var "machines=$2" >&2
    else
        tf apply -auto-approve -input=false -no-color >&2
    fi
    tf output -json hosts | python3 -c 'import json, sys
for host in json.load(sys.stdin):
    print(json.dumps(host))'
    ;;
down)
    # Terraform keeps its own state, so what a failed `up` has left half-made goes too.
    tf destroy -auto-approve -input=false -no-color >&2
    ;;
esac
