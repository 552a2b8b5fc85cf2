#!/usr/bin/env bash
# run.sh of the GPU bundle (./dev gpu-bundle): runs the checks of the CUDA backend on this machine's GPU, goes on after a failure,
# and ends with a line for each. Exit code: the number of checks that failed.
set -uo pipefail
cd "$(dirname "$0")"
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
results=() failed=0

check() { # NAME command...
  local name=$1
  shift
  echo "== $name"
  if "$@"; then results+=("ok      $name"); else results+=("FAILED  $name"); failed=$((failed + 1)); fi
}

# Without a GPU the suite skips, which is no success here.
conformance() {
  local log
  log=$(mktemp)
  bin/cuda_conformance_test --gtest_brief=1 | tee "$log"
  [[ ${PIPESTATUS[0]} == 0 ]] && ! grep -q SKIPPED "$log"
}

# Ready within a minute, one greedy answer, and a clean end.
serve() {
  local log line url
  log=$(mktemp)
  bin/sessa-server --model demo --device cuda --http_port 0 --grpc_port 0 >"$log" &
  local pid=$!
  for _ in $(seq 60); do
    line=$(grep -o 'http=[^ ]*' "$log") && break
    sleep 1
  done
  url=${line#http=}
  python3 - "http://$url/v1/completions" <<'PYTHON'
import json, sys, urllib.request
body = {"prompt": "Maya said that the red key is in the barn.\nQuestion: Where is the red key?\nAnswer:", "temperature": 0, "stop": ["\n"]}
request = urllib.request.Request(sys.argv[1], json.dumps(body).encode(), {"Content-Type": "application/json"})
text = json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"]
print(text)
sys.exit(0 if "barn" in text else 1)
PYTHON
  local answered=$?
  kill "$pid"
  wait "$pid" && return $answered
}

nvidia-smi || echo "no nvidia-smi here"
check conformance conformance
for folder in mha gqa one_head no_rope long; do
  check "$folder f32" bin/sessa-check-reference "data/$folder" --device cuda
  check "$folder f32, chunks of 33" bin/sessa-check-reference "data/$folder" --device cuda --chunk 33 --page_size 16
  # Linears of 64 rows or more round their inputs to bf16.
  check "$folder bf16" bin/sessa-check-reference "data/$folder" --device cuda --weight_dtype bf16 --state_dtype bf16 --tolerance 2e-2
  check "$folder bf16, batch-invariant" bin/sessa-check-reference "data/$folder" --device cuda --weight_dtype bf16 --state_dtype bf16 --batch_invariant
  check "$folder, two ranks on one GPU" bin/sessa-check-reference "data/$folder" --device cuda --tensor_parallel_size 2 --chunk 50
done
check "the server" serve
printf '%s\n' "${results[@]}"
exit "$failed"
