#!/bin/sh
# layout.sh WHEELS TARGET: the server of the nvidia-pytriton wheel, laid out as in NVIDIA's images.
set -eu
wheels="$1" target="$2"

python="$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
server="$wheels/pytriton/tritonserver"
stub="$server/python_backend_stubs/$python/triton_python_backend_stub"
if [ ! -f "$stub" ]; then
    echo "error: the nvidia-pytriton wheel has no Python backend for Python $python: set BASE_IMAGE to one with Python 3.10 to 3.12" >&2
    exit 1
fi
mkdir -p "$target/bin" "$target/backends/python" "$target/lib"
cp "$server/bin/tritonserver" "$target/bin/"
cp "$server"/backends/python/*.so "$server"/backends/python/*.py "$stub" "$target/backends/python/"
cp "$wheels"/nvidia_pytriton.libs/*.so* "$target/lib/"
# The interpreter of another version, which its stub alone is linked to.
rm -f "$target"/lib/libpython3-*

# The stub is linked to the interpreter's shared library; Debian's python3 comes without it.
library="libpython$python.so.1.0"
if ! python3 -c "import ctypes; ctypes.CDLL('$library')" 2>/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "libpython$python" >/dev/null
    cp "$(ldconfig -p | sed -n "s|.*$library .*=> ||p" | head -n 1)" "$target/lib/"
fi
