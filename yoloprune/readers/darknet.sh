#!/bin/sh
# Milliseconds of the networks in networks/ in Darknet (pjreddie's or AlexeyAB's), in turns: sh darknet.sh [PROGRAM]
# Darknet's own "speed" runs them with random weights, which takes as long.
set -eu
cd "$(dirname "$0")"
program=${1:-darknet}
for round in 1 2 3 4 5 6 7 8 9; do
    for cfg in networks/*.cfg; do
        "$program" speed "$cfg" 5 2>/dev/null | tr '\r' '\n' | sed -n "s|^Speed: \([0-9.e-]*\) sec/eval.*|$cfg \1|p"
    done
done | sort -k1,1 -k2,2g | awk '
    function tell() { if (n) printf "%s darknet: %.2f ms (%.2f-%.2f)\n", name, t[int((n + 1) / 2)], t[1], t[n] }
    $1 != name { tell(); name = $1; n = 0 }
    { t[++n] = 1000 * $2 }
    END { tell(); if (!NR) { print "no times: is " program " Darknet?"; exit 1 } }' program="$program"
