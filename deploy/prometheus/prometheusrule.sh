#!/usr/bin/env bash
# Prints rules.yaml as a PrometheusRule. A test asks that prometheusrule.yaml is what this prints.
set -euo pipefail
cat <<'HEAD'
# Made by prometheusrule.sh of rules.yaml: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: sessa-serve
  labels: {app.kubernetes.io/name: sessa-serve}
spec:
HEAD
sed -n '/^groups:/,$s/^\(.\)/  \1/; /^  groups:/,$p' "$(dirname "$0")/rules.yaml"
