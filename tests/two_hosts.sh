#!/usr/bin/env bash
# Trains across two hosts and compares with one process: two network namespaces of this machine stand for the hosts, joined
# by a virtual cable. Needs root and iproute2. Usage: tests/two_hosts.sh [key.sub=value …]   Prints "same weights" or fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
scratch=$(mktemp -d)
a=evenhand-a-$$ b=evenhand-b-$$
clean() {
  kill $(jobs -p) 2>/dev/null || true
  ip netns del "$a" 2>/dev/null || true
  ip netns del "$b" 2>/dev/null || true
  rm -rf "$scratch"
}
trap clean EXIT

ip netns add "$a"
ip netns add "$b"
ip link add cable netns "$a" type veth peer name cable netns "$b"
for host in a b; do
  name=${!host}
  ip -n "$name" address add "10.77.0.$([ $host = a ] && echo 1 || echo 2)/24" dev cable
  ip -n "$name" link set cable up
  ip -n "$name" link set lo up
done

settings=(data.max_length=48 data.max_texts=200 tokenizer.train_vocab_size=300 student.init=random
  "student.config={n_layer: 1, n_embd: 16, n_head: 2}" loss.kd_weight=0 loss.lm_weight=1 student.dropout=0 counterfactual.augment=true
  train.max_steps=3 train.batch_size=16 train.micro_batch_size=8 train.cpu_threads=1 "$@")
export ACCELERATE_USE_CPU=true OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1

host() { # rank, namespace
  ip netns exec "$2" env GLOO_SOCKET_IFNAME=cable "$python" -m accelerate.commands.launch --multi_gpu \
    --num_machines 2 --num_processes 2 --machine_rank "$1" --main_process_ip 10.77.0.1 --main_process_port 29577 \
    --mixed_precision no --dynamo_backend no train_distill.py "${settings[@]}" output_dir="$scratch/two"
}
host 1 "$b" >"$scratch/b.log" 2>&1 &
host 0 "$a" >"$scratch/a.log" 2>&1 || { tail -n 30 "$scratch/a.log" "$scratch/b.log"; exit 1; }
wait

"$python" train_distill.py "${settings[@]}" output_dir="$scratch/one" >"$scratch/one.log" 2>&1 || { tail "$scratch/one.log"; exit 1; }
"$python" - "$scratch" <<'PY'
import json
import sys

from safetensors.torch import load_file

one, two = (load_file(f"{sys.argv[1]}/{name}/model/model.safetensors") for name in ("one", "two"))
ranks = json.load(open(f"{sys.argv[1]}/two/run.json", encoding="utf-8"))["ranks"]
worst = max(float((one[key] - two[key]).abs().max()) for key in one)
assert ranks == 2 and one.keys() == two.keys() and worst < 1e-4, (ranks, worst)
print(f"same weights: two hosts and one process differ by {worst:.1e} at most")
PY
