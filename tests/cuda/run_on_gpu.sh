#!/usr/bin/env bash
# run.sh of the GPU bundle (./dev gpu-bundle): checks the CUDA backend on this machine's GPU in less than 8 minutes.
#
#   run.sh [--device cpu] [STEP...]     all steps, or some; --device cpu: what can be checked of the bundle without a GPU
#
# A step that fails or runs into its time limit does not stop the others. Writes summary.txt, log.txt and what the
# benchmarks measured (*.csv, peers.json) into $OUT, where that is set, or ./out. Exit code: how many steps failed.
set -uo pipefail
cd "$(dirname "$0")"
here=$PWD
out=${OUT:-$here/out}
readonly kSkipped=77  # exit code of a step that this machine cannot run; its last line says why

# Name, seconds: with the probe's 30 together less than 480.
limits='start 8
conformance 55
reference 50
recall 30
nccl 8
kernels 95
steps 90
peers 48
memcheck 35
racecheck 30'

skip() { echo "$*" && exit "$kSkipped"; }
needs_gpu() { [[ $device == cuda ]] || skip "needs a GPU"; }

# Our programs find their own libraries by themselves; CUDA's are this machine's. The driver's library may be where only
# LD_LIBRARY_PATH says so, or in a folder that no cache knows.
ours() {
  local driver=""
  ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1' || driver=/usr/local/nvidia/lib64
  LD_LIBRARY_PATH=$cuda_path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}${driver:+:$driver} "$@"
}

# Every program finds all its libraries, and none but the C library's and CUDA's outside the bundle.
step_start() {
  local program from failed=0
  for program in bin/*; do
    while read -r name _ from _; do
      case $name in
        lib[cm].so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | libresolv.so.2 | linux-vdso.so.1 | */ld-linux-*) continue ;;
        libcublas*) [[ $from == /* ]] && continue ;;
        libnccl*) continue ;;
        *) [[ $from == "$here"/* ]] && continue ;;
      esac
      echo "$program: $name is $from, not the bundle's" && failed=1
    done < <(ours ldd "$program")
  done
  echo "CUDA's libraries from ${cuda_path:-nowhere}"
  if command -v nvidia-smi >/dev/null; then nvidia-smi; fi
  if [[ $has_gpu != yes && $device != cpu ]]; then
    echo "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}; the linker knows $(ldconfig -p | grep 'libcuda\.so' || echo no libcuda)"
    probe || failed=1
  fi
  return "$failed"
}

# conformance FILTER [TOOL flags]: tests that ran and passed. Without a usable GPU the suite skips, which is no success here.
# Every test is named before it runs: the last one is the one that hangs.
conformance() {
  local filter=$1 log
  shift
  log=$(mktemp)
  ours "$@" bin/cuda_conformance_test --gtest_filter="$filter" 2>&1 | tee "$log"
  [[ ${PIPESTATUS[0]} == 0 ]] && grep -q 'PASSED.* [1-9][0-9]* test' "$log" && ! grep -q SKIPPED "$log" && return
  (($#)) && grep -q 'Device not supported' "$log" && skip "compute-sanitizer does not support this device"
  return 1
}
# A fault of the device ends all that its process does on it, and a hang too: the fixtures have a process each, side by side.
step_conformance() {
  needs_gpu
  local fixture job jobs=() failed=0
  for fixture in ConformanceTest LinearTest SampleTest StateTest; do
    conformance "*/$fixture.*-*/Cpu:*/CudaSmall" timeout --foreground -s KILL 50 &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failed=1; done
  return "$failed"
}

step_reference() {
  local folder failed=0
  compare() { echo "$folder $*" && ours bin/sessa-check-reference "tests/reference/data/$folder" --device "$device" "$@" | grep -E 'BEYOND|no such|^ok|^FAILED' || failed=1; }
  for folder in mha gqa one_head no_rope long; do
    compare
    compare --chunk 33 --page_size 16
    # Linears of 64 rows or more round their inputs to bf16.
    compare --weight_dtype bf16 --state_dtype bf16 --tolerance 2e-2
    compare --weight_dtype bf16 --state_dtype bf16 --batch_invariant
    compare --tensor_parallel_size 2 --chunk 50  # two ranks on one GPU
  done
  return "$failed"
}

# The demo model behind the server: the published answers.
step_recall() {
  command -v python3 >/dev/null || skip "needs python3"
  ours python3 recall_check.py --server bin/sessa-server --demo demo --device "$device"
}

# One rank is a group too.
step_nccl() {
  needs_gpu
  [[ -x bin/nccl_gpu_test ]] || skip "the bundle was made without NCCL"
  local nccl
  nccl=$(./cuda_libraries.sh libnccl.so.2) || skip "NCCL is not on this machine"
  LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$nccl ours bin/nccl_gpu_test
}

# After a fault or a hang, what it kept from being measured.
step_kernels() {
  needs_gpu
  ours timeout --foreground -s KILL 50 bin/cuda_bench --csv "$out/kernels.csv" kernels && return
  local group part
  part=$(mktemp)
  for group in Linear StateRead Attend FeedbackRead Solve Sample; do
    grep -q "^$group/" "$out/kernels.csv" && continue
    ours timeout --foreground -s KILL 7 bin/cuda_bench --csv "$part" --filter "$group" kernels
    tail -n +2 "$part" >>"$out/kernels.csv"
  done
  return 1
}
step_steps() { needs_gpu && ours bin/cuda_bench --csv "$out/steps.csv" steps; }

# PyTorch on the same GPU, of the same equations; or a few tiny shapes on a CPU.
step_peers() {
  python3 -c 'import importlib.util, sys; sys.exit(None in map(importlib.util.find_spec, ("torch", "safetensors")))' ||
    skip "needs python3 with PyTorch and safetensors"
  python3 -B tests/bench/peers/gpu_peers.py --out "$out/peers.json" --device "$device"
}

# Small shapes: the tools slow kernels down by one or two orders of magnitude.
sanitize() {
  needs_gpu
  local tool
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/{bin,compute-sanitizer}/compute-sanitizer 2>/dev/null | head -1)
  [[ -n $tool ]] || skip "compute-sanitizer is not on this machine"
  # Each of the library's kernels costs the tools a second; a test asks for more memory than there is.
  conformance '*/CudaSmall:-*EveryCutIsTheSameBits*:*LongContext*:*Impulse*:*AgreesAtEveryEdge*:*MemoryIsZero*' \
    "$tool" --tool "$@" --error-exitcode 9
}
step_memcheck() { sanitize memcheck --report-api-errors no; }
step_racecheck() { sanitize racecheck; }

# Exit code 3 when there is no GPU, and says why.
probe() { ours timeout 30 bin/cuda_bench --filter nothing; }

device=cuda has_gpu="" only="" steps=()
while (($#)); do
  case $1 in
    --device) device=$2 && shift ;;
    --step) only=$2 has_gpu=$3 && shift 2 ;;  # as called below
    *) grep -q "^$1 " <<<"$limits" || { echo "no step $1; there are: $(awk '{printf "%s ", $1}' <<<"$limits")" >&2 && exit 2; }
      steps+=("$1") ;;
  esac
  shift
done
cuda_path=$(./cuda_libraries.sh $(<cuda_libraries.txt)) || exit 2
if [[ -n $only ]]; then
  [[ $device == cpu || $has_gpu == yes || $only == start ]] || skip "no GPU"
  "step_$only"
  exit
fi

has_gpu=yes  # what else may be wrong with it is for the steps to find
probe >/dev/null 2>&1 || [[ $? != 3 ]] || has_gpu=no
mkdir -p "$out"
rm -f "$out"/{summary.txt,verdicts.txt,log.txt,peers.json} "$out"/*.csv
# While somebody holds the device open, the driver does not start it anew for each program.
if [[ $device == cuda ]] && command -v nvidia-smi >/dev/null; then
  nvidia-smi -l 30 >/dev/null 2>&1 &
  trap "kill $! 2>/dev/null" EXIT
fi
failed=0
for step in ${steps[@]:-$(awk '{print $1}' <<<"$limits")}; do
  limit=$(awk -v step="$step" '$1 == step {print $2}' <<<"$limits")
  echo "== $step" | tee -a "$out/log.txt"
  begin=$SECONDS
  # SIGKILL: what waits for the device, or drains, does not heed SIGTERM.
  timeout -s KILL "$limit" "$here/run.sh" --device "$device" --step "$step" "$has_gpu" 2>&1 | tee "$out/step.txt" | tee -a "$out/log.txt"
  code=${PIPESTATUS[0]} note=""
  case $code in
    0) verdict=ok ;;
    "$kSkipped") verdict=skipped note=$(tail -1 "$out/step.txt") ;;
    124 | 137) verdict=FAILED note="not done after $limit s" ;;
    *) verdict=FAILED note="exit code $code" ;;
  esac
  [[ $verdict == FAILED ]] && failed=$((failed + 1))
  printf '%-8s %-12s %3d s  %s\n' "$verdict" "$step" $((SECONDS - begin)) "$note" >>"$out/verdicts.txt"
done
# The verdicts come last: where only the end of what is printed is kept, they are in it.
measured=$(cd "$out" && ls ./*.csv peers.json 2>/dev/null)
if [[ -n $measured ]] && command -v python3 >/dev/null; then
  python3 -B tests/bench/peers/peer_table.py --peers "$out/peers.json" --csv "$out/table.csv" "$out"/{kernels,steps}.csv
fi >"$out/summary.txt"
cat "$out/verdicts.txt" >>"$out/summary.txt"
rm -f "$out/step.txt" "$out/verdicts.txt"
echo "== summary"
cat "$out/summary.txt"
exit "$failed"
