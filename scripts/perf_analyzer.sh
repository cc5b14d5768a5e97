#!/usr/bin/env bash
# Usage: perf_analyzer.sh ARGUMENT...
# Runs Triton's perf_analyzer; first brings it and the libraries it needs to .tools/, from PyPI and
# Debian. Exits with 3 if they cannot be had here. PYTHON is the one whose pip is used.
set -euo pipefail

# Newer packages of that name need a newer C library, or are empty.
release=tritonclient==2.50.0
runtime=nvidia-cuda-runtime-cu12==12.9.79
python=${PYTHON:-python3}
tools=$(cd "$(dirname "$0")/.." && pwd)/.tools
folder=$tools/perf_analyzer-${release##*=}

bring() { # FOLDER
    cd "$1"
    "$python" -m pip download --quiet --no-deps --only-binary=:all: "$release" "$runtime" &&
        for wheel in *.whl; do "$python" -m zipfile -e "$wheel" wheels; done &&
        { apt-get -qq download libb64-0d || { apt-get -qq update && apt-get -qq download libb64-0d; }; } &&
        dpkg-deb -x libb64-0d_*.deb debian &&
        find wheels debian \( -name perf_analyzer -o -name 'libcudart.so.12' -o -name 'libb64.so.0d' \) \
            -exec cp {} . \; &&
        chmod +x perf_analyzer &&
        rm -rf wheels debian ./*.whl ./*.deb
}

if [[ ! -d $folder ]]; then
    mkdir -p "$tools"
    fresh=$(mktemp -d "$tools/perf_analyzer.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    if ! problem=$( (bring "$fresh") 2>&1); then
        echo "perf_analyzer cannot be had here (it needs Linux on x86-64, PyPI and apt-get): ${problem##*$'\n'}" >&2
        exit 3
    fi
    mv -T "$fresh" "$folder"
    trap - EXIT
fi

LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$folder/perf_analyzer" "$@"
