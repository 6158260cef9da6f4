#!/bin/sh
# A plain program with nothing but a shell and nc, as in the smallest of images: nc.sh ITEMS. Each
# command is typed, and the end of the input comes with it.
set -eu
authority=${INPUT_REDIS_URL#redis://*:}
password=${authority%%@*}
address=${authority#*@}
host=${address%%:*} port=${address#*:}
port=${port%%/*}

ask() {
    printf 'AUTH %s\r\n%s\r\n' "$password" "$1" | $NC "$host" "$port" | tr -d '\r' | tail -n 1
}

left=$1
while [ "$left" -gt 0 ]; do
    item=$(ask "RPOP $INPUT_QUEUE")
    [ "$(ask "LPUSH $OUTPUT_QUEUE \"result of $item\"")" = :1 ]
    left=$((left - 1))
done
[ "$(ask "RPOP $INPUT_QUEUE")" = '$-1' ]
