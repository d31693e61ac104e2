#!/bin/sh
# How much memory training takes with a large data file: anonymous resident memory (RssAnon), sampled ten times a second.
# The data are tokenized once into a memory-mapped file, so that the figure must not grow with them.
#
#   scripts/check_memory.sh [MIB] [LIMIT_MIB]     data of 200 MiB by default; fails above 400 MiB beyond the model's own
#
# "The model's own" is the same run on a file of 1 MiB. The file is read as it is, packed by gzip, and by zstd where that is there.
# FERROMIND names a binary that is built already. Needs Linux, and six times MIB of disk in TMPDIR: bytes become tokens of two bytes.
set -eu
mib=${1:-200}
limit=${2:-400}
ferromind=${FERROMIND:-}
if [ -z "$ferromind" ]; then
    cargo build --release --quiet
    ferromind=$PWD/target/release/ferromind
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# $1 MiB of JSON lines, each line different.
generate() {
    awk -v bytes=$(($1 * 1048576)) 'BEGIN {
        srand(1)
        split("the cat sees a small bird and it sings under old trees while rain falls on the roof of our house", words, " ")
        while (written < bytes) {
            line = "{\"text\": \"story " ++n
            for (i = 0; i < 100; i++) line = line " " words[int(rand() * 20) + 1]
            line = line ".\"}"
            print line
            written += length(line) + 1
        }
    }' > "$work/$1.jsonl"
}

# The most RssAnon in KiB of a run on the file $1.
peak() {
    "$ferromind" pretrain --data-path "$work/$1" --cache-dir "$work/cache" --out-dir "$work/run-$1" \
        --hidden-size 64 --num-hidden-layers 2 --max-seq-len 128 --batch-size 8 --max-steps 20 --warmup-steps 0 --val-batches 4 \
        --val-fraction 0.00001 > "$work/$1.log" 2>&1 &
    pid=$!
    most=0
    while now=$(awk '/^RssAnon:/ { print $2 }' "/proc/$pid/status" 2> /dev/null) && [ -n "$now" ]; do
        [ "$now" -gt "$most" ] && most=$now
        sleep 0.1
    done
    wait "$pid" || { cat "$work/$1.log" >&2; exit 1; }
    echo "$most"
}

generate 1
generate "$mib"
small=$(peak 1.jsonl)
within=true
check() {
    large=$(peak "$1")
    beyond=$(((large - small) / 1024))
    echo "RssAnon at most: $((small / 1024)) MiB on 1 MiB of data, $((large / 1024)) MiB on $1: $beyond MiB beyond (limit $limit)"
    [ "$beyond" -le "$limit" ] || within=false
    rm -rf "$work/cache"
}
check "$mib.jsonl"
gzip -1 < "$work/$mib.jsonl" > "$work/packed.jsonl.gz"
check packed.jsonl.gz
if command -v zstd > /dev/null; then
    zstd -q "$work/$mib.jsonl" -o "$work/packed.jsonl.zst"
    check packed.jsonl.zst
fi
$within
