# What the `run` scripts of experiments share. A script sources this file, and then works in the repository's root.
#
#   OUT      where the sweeps go, one directory per experiment; default runs/paper
#   JOBS     how many cells run at once; default as many as there are cores
#   --full   also run what takes hours: sweeps and searches behind `if full`
set -euo pipefail
full_size=no
for option in "$@"; do
    [[ $option == --full ]] || { echo "$0: $option? The only option is --full" >&2; exit 2; }
    full_size=yes
done
name=$(basename "$(cd "$(dirname "$0")" && pwd)")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
here=experiments/paper/$name
out=${OUT:-runs/paper}/$name
mfs=.venv/bin/mfs

# sweep NAME OPTION...: run a sweep of the experiment's scenario, or of the one that `scenario` names.
sweep() {
    $mfs sweep "${scenario:-$here/scenario.yaml}" --out "$out/$1" ${JOBS:+--jobs "$JOBS"} "${@:2}"
}

# gaps NAME OPTION...: a sweep that also runs the requests on a network that takes no time, to say how much of the gap
# to it each policy closes.
gaps() {
    sweep "$@" --ceiling
}

# full: whether what takes hours is to be run, too.
full() {
    [[ $full_size == yes ]]
}

# capacity NAME OPTION...: search the highest rates at which policies keep an SLO attainment.
capacity() {
    $mfs capacity "${scenario:-$here/scenario.yaml}" --out "$out/$1" --format svg ${JOBS:+--jobs "$JOBS"} "${@:2}"
}

# differences NAME [FILE]: keep how the policies of a sweep differ in SLO attainment and mean TTFT.
differences() {
    grep -E '(^|,)measure,|,slo_attainment,|,ttft_mean_s,' "$out/$1/differences.csv" > "$here/${2:-differences.csv}"
}

# plot NAME FILE OPTION...: draw a measure of a sweep, with intervals.
plot() {
    $mfs plot "$out/$1" --ci --width page --out "$here/$2" "${@:3}"
}

# tables: write the tables on the page of the experiment anew. Those of sweeps that only --full runs stay as they are
# without it.
tables() {
    .venv/bin/python scripts/paper_tables.py "$here/README.md" "$out" "$@"
    if full; then .venv/bin/python scripts/paper_tables.py "$here/README.md" "$out" --full; fi
}
