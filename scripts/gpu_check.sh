#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, in one run of a few minutes: the tests marked cuda, the published network stage by
# stage, the real node at 30 and 60 images a second, the small network of the package.
#
#   scripts/gpu_check.sh [FOLDER]                results go to FOLDER (default: gpu_check)
#   scripts/gpu_check.sh --quick [FOLDER]        K = 4 at 30 images a second, no tests: two minutes
#   scripts/gpu_check.sh --device cpu [FOLDER]   a rehearsal with small sizes
#   PYTHON=... scripts/gpu_check.sh              another interpreter than .venv's; ROS 2 is needed for the node only
#
# It needs nothing but the repository and its libraries: no network, no checkpoint, no recording. Every figure is a line,
# and every part writes its JSON as it goes. Each part has a time limit: what one loses the others keep.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
device=cuda quick=
while true; do
    case ${1:-} in
        --device) device=${2:-}; shift $(($# > 1 ? 2 : 1)) ;;
        --quick) quick=yes; shift ;;
        *) break ;;
    esac
done
case $device in
    cuda)
        sizes=(--config vitl) counts=(-k 1 -k 4 -k 8 -k 10 --held 5000) rounds=15 rates=(--rate 30 --rate 60) seconds=7
        queries=20 until=110
        ;;
    cpu)
        sizes=(--config small --network-size 160) counts=(-k 1 -k 2 --held 8) rounds=1 rates=(--rate 1) seconds=3
        queries=2 until=1500
        ;;
    *) echo "gpu_check: --device $device is not one of cuda, cpu" >&2; exit 2 ;;
esac
if [ -n "$quick" ] && [ "$device" = cuda ]; then
    counts=(-k 4 --no-compiled) rates=(--rate 30) queries=20
fi
folder=${1:-gpu_check}
mkdir -p "$folder" && folder=$(cd "$folder" && pwd)
cd "$root" || exit 2
python=${PYTHON:-$root/.venv/bin/python}
command -v "$python" >/dev/null || { echo "gpu_check: no $python: run make setup, or set PYTHON" >&2; exit 2; }
export PYTHONUNBUFFERED=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
failed=()

# part NAME SECONDS COMMAND...: its lines go to the screen and to FOLDER/NAME.txt.
part() {
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    # On a CPU everything takes as long as it takes.
    [ "$device" = cuda ] || limit=1800
    timeout -k 10 "$limit" "$@" 2>"$folder/$name.err" | sed -u "s/^/$name: /" | tee -a "$folder/gpu_check.txt"
    local code=${PIPESTATUS[0]}
    echo "$name: exit code $code after $((SECONDS - start)) s" | tee -a "$folder/gpu_check.txt"
    [ "$code" = 0 ] || { failed+=("$name"); tail -n 25 "$folder/$name.err" | tee -a "$folder/gpu_check.txt"; }
    cat "$folder/$name.err" >>"$folder/gpu_check.err" && rm -f "$folder/$name.err"
}

benchmark() { "$root/scripts/with_ros.sh" "$python" -m mast3r_ros.cli.main benchmark "$@"; }

cuda_tests() {
    local files
    mapfile -t files < <(grep -lE 'mark\.cuda|from kernels import' test/test_*.py)  # others may need libraries that are not here
    # Most of their time is PyTorch's start and the compiling of kernels: several processes share one card.
    local spread=()
    ! "$python" -c 'import xdist' 2>/dev/null || spread=(-n "$([ "$device" = cuda ] && echo 10 || echo 0)")
    "$root/scripts/with_ros.sh" "$python" -m pytest "${files[@]}" "${spread[@]}" -m cuda -q -p no:cacheprovider \
        --timeout 80 --junitxml "$folder/tests.xml"
}

small_network() {
    benchmark localize --matcher mast3r --device "$device" -k 5 -n "$queries" --rounds 2 --json >"$folder/small.json" || return
    "$python" - "$folder/small.json" <<'PYTHON'
import json, sys

figures = json.load(open(sys.argv[1]))["mast3r_ros"]
print(f"queries per second {figures['queries_per_second']:.1f}, poses found {figures['poses_found']}")
print("stages " + ", ".join(f"{name} {ms:.2f}" for name, ms in figures["stages_ms"].items()) + " ms")
PYTHON
}

export -f benchmark cuda_tests small_network
export root python folder device queries
: >"$folder/gpu_check.txt"
: >"$folder/gpu_check.err"
"$python" -c 'import platform, torch; print("machine:", platform.python_version(), "torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' |
    tee -a "$folder/gpu_check.txt"
# Limits add up to less than eight minutes. In an earlier run on an H200 the parts took 81, 82, 34 (ten processes), 40 s.
part network 150 bash -c 'benchmark gpu "$@"' _ "${sizes[@]}" "${counts[@]}" --rounds "$rounds" --seconds "$until" \
    --device "$device" -o "$folder/network.json"
part node 110 bash -c 'benchmark node "$@"' _ "${sizes[@]}" -k "$([ "$device" = cuda ] && echo 4 || echo 2)" \
    "${rates[@]}" --seconds "$seconds" --device "$device" -o "$folder/node.json"
[ -n "$quick" ] || part tests 100 bash -c cuda_tests
part small 80 bash -c small_network
if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed: ${failed[*]}" | tee -a "$folder/gpu_check.txt"
    exit 1
fi
echo "all parts passed" | tee -a "$folder/gpu_check.txt"
