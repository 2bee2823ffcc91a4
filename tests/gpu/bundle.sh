#!/usr/bin/env bash
# Builds what tests/gpu/run.sh needs on a machine without our packages, and packs it: build-portable.tar.xz, to be copied
# there beside a checkout. Needs nvcc, cuDNN and the packages of tools/setup.sh, but no GPU. The programs share most of
# their bytes, the kernels, so a dictionary that spans them all makes the archive small.
# Usage: tests/gpu/bundle.sh [ARGUMENTS OF CMAKE], for one card's architecture: -DGM_CUDA_ARCHS=90-real
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake --preset portable "$@" >/dev/null
cmake --build --preset portable --parallel "${GM_JOBS:-$(nproc)}"
# PyTorch brings cuDNN and cuBLAS to the other machine, but not this.
nvjpeg=$(sed -n 's/^NVJPEG_LIBRARY:FILEPATH=//p' build-portable/CMakeCache.txt)
if [ -f "$nvjpeg" ]; then
  cp -L "$nvjpeg" "build-portable/bin/$(readelf -d "$nvjpeg" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')"
fi
tar c build-portable/bin | xz --lzma2=preset=1,dict=256MiB,nice=64 >build-portable.tar.xz.partial
mv build-portable.tar.xz.partial build-portable.tar.xz
du -h build-portable.tar.xz
