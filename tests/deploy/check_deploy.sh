#!/usr/bin/env bash
# All that can be said of deploy/ and the Dockerfile without a cluster: every overlay is built by kubectl, held against schemas and
# the real server (the tests that CI runs too), and judged by checkov and hadolint.
#
#     tests/deploy/check_deploy.sh BUILD_DIR PYTHON_BIN TOOLS_BIN      (./dev check-deploy)
set -euo pipefail
build_dir=$1 python_bin=$2 tools=$3
cd "$(dirname "$0")/../.."
ctest --test-dir "$build_dir" --output-on-failure -R '^(manifests|manifest_schemas|model_download|dockerfile|alerts|dashboards)$'
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
for overlay in deploy/base deploy/overlays/*; do
  "$python_bin/kubectl" kustomize "$overlay" >"$made/$(basename "$overlay").yaml"
done
"$tools/checkov" --config-file tests/deploy/checkov.yaml -d "$made" --framework kubernetes
"$tools/checkov" --config-file tests/deploy/checkov.yaml -f docker/Dockerfile --framework dockerfile
echo "passed: $(find "$made" -name '*.yaml' | wc -l) manifests and the Dockerfile"
