#!/usr/bin/env bash
# Usage: gen_protos.sh PYTHON [--check]
# Generates trunkline.v1 from protos/ with PYTHON's grpcio-tools; --check only compares.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
mode=${2:-}
checked_in=runtime/trunkline/v1
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

"$python" -m grpc_tools.protoc -I protos \
    --python_out="$fresh" --pyi_out="$fresh" --grpc_python_out="$fresh" \
    protos/trunkline/v1/*.proto

if [[ $mode == --check ]]; then
    diff -ru --exclude=__init__.py --exclude=__pycache__ --exclude=py.typed \
        "$checked_in" "$fresh/trunkline/v1" || {
        echo "$checked_in differs from protos/: run 'make gen'." >&2
        exit 1
    }
else
    rm -f "$checked_in"/*_pb2*
    cp "$fresh"/trunkline/v1/* "$checked_in"/
fi
