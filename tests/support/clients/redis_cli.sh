#!/bin/sh
# A plain program in redis-cli: redis_cli.sh RESP ITEMS. One process, and so one connection, for each
# command; then commands from a pipe; and at last the raw protocol.
set -eu
half=$(($2 / 2)) resp=-$1
cli() {
    redis-cli "$resp" -u "$INPUT_REDIS_URL" --no-auth-warning "$@"
}

while [ "$half" -gt 0 ]; do
    item=$(cli RPOP "$INPUT_QUEUE")
    cli LPUSH "$OUTPUT_QUEUE" "result of $item" > /dev/null
    half=$((half - 1))
done

# The pops come by one connection, which is closed when they are read, and the results by another.
items=$(printf 'PING\nRPOP %s %d\n' "$INPUT_QUEUE" "$(($2 / 4))" | cli --no-raw |
    sed -n 's/^ *[0-9]*) "\(.*\)"$/\1/p')
for item in $items; do
    printf 'LPUSH %s "result of %s"\n' "$OUTPUT_QUEUE" "$item"
done | cli > /dev/null

items=$(cli BLMPOP 5 1 "$INPUT_QUEUE" RIGHT COUNT "$(($2 / 4))" | tail -n +2)
for item in $items; do
    printf 'LPUSH %s "result of %s"\r\n' "$OUTPUT_QUEUE" "$item"
done | cli --pipe > /dev/null

[ -z "$(cli RPOP "$INPUT_QUEUE")" ]
