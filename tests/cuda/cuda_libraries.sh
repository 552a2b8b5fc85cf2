#!/usr/bin/env bash
# cuda_libraries.sh SONAME...: the folders of these libraries on this machine, joined by colons, for LD_LIBRARY_PATH.
# Looks where toolkits, the dynamic linker and Python's CUDA packages (those that PyTorch brings) keep them. Names what is
# missing and exits with 1.
set -uo pipefail

folders() {
  tr : '\n' <<<"${LD_LIBRARY_PATH:-}"
  printf '%s\n' /usr/local/cuda/lib64 /usr/local/cuda*/lib64 /usr/local/cuda*/targets/x86_64-linux/lib
  ldconfig -p 2>/dev/null | sed -n 's/.* => \(.*\)\/[^/]*$/\1/p' | sort -u
  python3 - <<'PYTHON' 2>/dev/null
import glob, importlib.util, os
spec = importlib.util.find_spec("nvidia")
for root in spec.submodule_search_locations if spec else ():
    print("\n".join(glob.glob(os.path.join(root, "*", "lib"))))
PYTHON
}

mapfile -t candidates < <(folders)
path="" missing=()
for soname in "$@"; do
  found=""
  for folder in "${candidates[@]}"; do
    if [[ -n $folder && -e $folder/$soname ]]; then found=$folder && break; fi
  done
  if [[ -z $found ]]; then
    missing+=("$soname")
  elif [[ :$path: != *:$found:* ]]; then
    path=${path:+$path:}$found
  fi
done
if ((${#missing[@]})); then
  echo "not on this machine: ${missing[*]}. Install the CUDA ${missing[0]##*.} toolkit or PyTorch for it, or name the folder in LD_LIBRARY_PATH." >&2
  exit 1
fi
echo "$path"
