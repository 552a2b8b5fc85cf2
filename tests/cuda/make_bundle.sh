#!/usr/bin/env bash
# make_bundle.sh ROOT BUILD_DIR PROGRAM...: packs the checks of the CUDA backend into BUILD_DIR.tar.gz, at most 60 MiB, for a
# machine that has a GPU, its driver, CUDA's libraries and Python but neither this tree nor its packages; then unpacks it
# elsewhere and checks it as far as a machine without a GPU can. Libraries are the bundle's own, found by the programs'
# run paths, but for the C library's and those of CUDA, which alone would take 550 MB.
set -euo pipefail
root=$1 build=$2
shift 2
readonly kMaxBytes=$((60 << 20))
name=$(basename "$build")
stage=$build/stage/$name

rm -rf "$build/stage"
mkdir -p "$stage/bin" "$stage/lib" "$stage/tests/bench/peers"
for program in "$@"; do
  cp "$build/$program" "$stage/bin/"
  ldd "$build/$program"
done | awk '$3 ~ /^\// {print $3}' | grep -v -E '/(libc|libm|libpthread|libdl|librt|libresolv)\.so' | sort -u >"$build/libraries.txt"
for library in $(grep -v -E '/lib(cublas|cublasLt|nccl)\.so' "$build/libraries.txt"); do cp -L "$library" "$stage/lib/"; done
strip --strip-debug "$stage"/lib/*
strip "$stage"/bin/*
grep -E '/lib(cublas|cublasLt)\.so' "$build/libraries.txt" | xargs -n 1 basename >"$stage/cuda_libraries.txt"
# NCCL is wanted by its own check alone, which is skipped without it.
if grep -E 'lib(cuda|cudart)\.so' "$build/libraries.txt" || ldd "$stage"/bin/{sessa-*,cuda_*,wgmma_*} | grep libnccl; then
  echo "the bundle must do without these" >&2 && exit 1
fi
# What Python finds by its place in the tree keeps it.
tar -C "$root" -c tests/reference/data tests/bench/peers/{gpu_peers,measure,peer_table,shape,torch_sessa}.py | tar -C "$stage" -x
cp -r "$root/models/demo" "$stage/demo"
cp "$root"/tests/cuda/bundle/* "$stage/"
cp "$root/tests/cuda/cuda_libraries.sh" "$root/tests/e2e/recall_check.py" "$stage/"
tar -C "$build/stage" --owner=0 --group=0 -czf "$build.tar.gz" "$name"
size=$(stat -c %s "$build.tar.gz")
printf '%s.tar.gz: %.1f MiB\n' "$build" "$(bc <<<"scale=3; $size / 1048576")"
if ((size > kMaxBytes)); then
  du -a "$stage" | sort -n | tail -5 >&2
  echo "more than $((kMaxBytes >> 20)) MiB" >&2 && exit 1
fi

elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
tar -C "$elsewhere" -xzf "$build.tar.gz"
OUT=$elsewhere/out "$elsewhere/$name/run.sh" --device cpu
