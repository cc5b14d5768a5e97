#!/usr/bin/env bash
# Usage: gen_protos.sh PYTHON [--check]
# Generates trunkline.v1 and trunkline_serve.oip.v1 from protos/ with PYTHON's grpcio-tools;
# --check only compares.
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1
mode=${2:-}
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

"$python" -m grpc_tools.protoc -I protos \
    --python_out="$fresh" --pyi_out="$fresh" --grpc_python_out="$fresh" \
    protos/trunkline/v1/*.proto
# No stubs: callers have their own, under the name that the protocol gives the service.
"$python" -m grpc_tools.protoc -I protos \
    --python_out="$fresh" --pyi_out="$fresh" \
    protos/trunkline_serve/oip/v1/*.proto

place() { # PACKAGE CHECKED_IN
    if [[ $mode == --check ]]; then
        diff -ru --exclude=__init__.py --exclude=__pycache__ --exclude=py.typed \
            "$2" "$fresh/$1" || {
            echo "$2 differs from protos/: run 'make gen'." >&2
            exit 1
        }
    else
        rm -f "$2"/*_pb2*
        cp "$fresh/$1"/* "$2"/
    fi
}

place trunkline/v1 runtime/trunkline/v1
place trunkline_serve/oip/v1 serve/trunkline_serve/oip/v1
