#!/bin/sh
# A task's program, for busybox: takes items from INPUT_QUEUE until it is empty, pushes
# <item>:<architecture>:<CPUs it may use> to OUTPUT_QUEUE for each, and exits 0. A queue that
# stays empty for a second counts as empty; an item is one line of text.
#
# `nc HOST PORT -e PROGRAM` runs PROGRAM with the connection as its input and output. Two of them,
# one started by the other, give one process both connections, as any program has that makes a
# client for INPUT_REDIS_URL and one for OUTPUT_REDIS_URL.
set -u
# ${#word} must count bytes.
export LC_ALL=C
CR=$(printf '\r')
CRLF=$(printf '\r\n_')
CRLF=${CRLF%_}

fail() {
    echo "consumer: $*" >&2
    exit 1
}

# redis://[user][:password@]host:port[/db]
parse() {
    rest=${1#redis://}
    credentials=
    case $rest in *@*) credentials=${rest%@*} rest=${rest##*@} ;; esac
    case $rest in */*) db=${rest#*/} ;; *) db=0 ;; esac
    rest=${rest%%/*}
    host=${rest%:*} port=${rest##*:}
    user=$(decode "${credentials%%:*}")
    password=
    case $credentials in *:*) password=$(decode "${credentials#*:}") ;; esac
}

decode() {
    printf '%b' "$(printf '%s' "$1" | sed 's/%/\\x/g')"
}

# One write for the whole command: the parts of several would wait for each other's receipt.
request() {
    message="*$#$CRLF"
    for word in "$@"; do
        message="$message\$${#word}$CRLF$word$CRLF"
    done
    printf '%s' "$message"
}

# Leaves the reply, or the last element of a list, in $value; fails for null.
reply() {
    IFS= read -r line || fail "the connection was closed"
    line=${line%"$CR"}
    case $line in
        -*) fail "$line" ;;
        '$-1' | '*-1' | _) return 1 ;;
        '$'*)
            IFS= read -r value || fail "the connection was closed"
            value=${value%"$CR"}
            ;;
        '*'*)
            local count=${line#'*'}
            while [ "$count" -gt 0 ]; do
                reply
                count=$((count - 1))
            done
            ;;
        *) value=${line#?} ;;
    esac
}

call() {
    request "$@"
    reply
}

log_in() {
    parse "$1"
    if [ -n "$password" ] && [ -n "$user" ]; then
        call AUTH "$user" "$password"
    elif [ -n "$password" ]; then
        call AUTH "$password"
    fi
    if [ "$db" != 0 ] && [ -n "$db" ]; then
        call SELECT "$db"
    fi
}

drain() {
    log_in "$INPUT_REDIS_URL" <&3 >&4
    log_in "$OUTPUT_REDIS_URL"
    suffix="$(uname -m):$(nproc)"
    while call BRPOP "$INPUT_QUEUE" 1 <&3 >&4; do
        call LPUSH "$OUTPUT_QUEUE" "$value:$suffix"
    done
}

case ${1:-connect-input} in
    connect-input)
        parse "$INPUT_REDIS_URL"
        exec nc "$host" "$port" -e "$0" connect-output
        ;;
    connect-output)
        exec 3<&0 4>&1
        parse "$OUTPUT_REDIS_URL"
        exec nc "$host" "$port" -e "$0" drain
        ;;
    drain) drain ;;
esac
