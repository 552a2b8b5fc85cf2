#!/usr/bin/env bash
# run.sh of the GPU bundle (./dev gpu-bundle): what run.py says.
exec python3 -B "$(dirname "$0")/run.py" "$@"
