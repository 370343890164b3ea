#!/usr/bin/env bash
# Trains the small network for some minutes on a GPU, from a bare machine with PyTorch; a folder with a training in it goes on.
#
#   scripts/gpu_train.sh OUT [MINUTES]
#
# OUT gets model.safetensors, model.json, metrics.csv and state.safetensors, from which the next slice goes on.
#   PYTHON=python3        interpreter that has PyTorch
#   WHEELS=folder         where pip finds what is missing, on a machine without a network
#   CONFIG=file.yaml      another training than config/train/small_gpu.yaml
#   INIT=file.safetensors weights that a new training starts from
#   SPLIT_MB=14           leave model and state in parts of this size, with join.sh, which puts them together
set -euo pipefail

[ $# -ge 1 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
minutes=${2:-8}
python=${PYTHON:-python3}
split_mb=${SPLIT_MB:-0}
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

# What the training imports, and who brings it. PyTorch is the machine's own.
missing=$("$python" - <<'EOF'
import importlib.util as util
names = {"numpy": "numpy", "scipy": "scipy", "cv2": "opencv-python-headless<5", "poselib": "poselib", "faiss": "faiss-cpu",
         "safetensors": "safetensors", "PIL": "pillow", "yaml": "pyyaml", "rosbags": "rosbags<0.12", "lz4": "lz4",
         "zstandard": "zstandard", "typer": "typer<0.21", "click": "click<8.4", "rich": "rich", "matplotlib": "matplotlib"}
if not util.find_spec("torch"):
    raise SystemExit("gpu_train: this Python has no PyTorch: name one that has it by PYTHON=...")
print(" ".join(wheel for name, wheel in names.items() if not util.find_spec(name)))
EOF
)
if [ -n "$missing" ]; then
    read -ra wanted <<<"$missing"
    "$python" -m pip install --quiet ${WHEELS:+--no-index --find-links "$WHEELS"} "${wanted[@]}"
fi

[ ! -f "$out/join.sh" ] || bash "$out/join.sh"
"$python" -m mast3r_ros.cli.main train "${CONFIG:-$root/config/train/small_gpu.yaml}" --output "$out" \
    --minutes "$minutes" ${INIT:+--init "$INIT"}

if [ "$split_mb" != 0 ]; then
    for file in "$out"/{model,state}.safetensors; do
        rm -f "$file".part-*
        split --bytes="${split_mb}M" --numeric-suffixes --suffix-length=3 "$file" "$file.part-"
        rm "$file"
    done
    cat >"$out/join.sh" <<'EOF'
#!/usr/bin/env bash
# Puts the parts beside it together again.
cd "$(dirname "${BASH_SOURCE[0]}")"
for first in *.part-000; do
    [ -e "$first" ] || continue
    cat "${first%.part-000}".part-* >"${first%.part-000}"
done
EOF
fi
