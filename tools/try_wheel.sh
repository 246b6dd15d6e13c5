#!/usr/bin/env bash
# What a user does first with the installed package: in an empty environment, far from the source.
#     bash tools/try_wheel.sh dist/genbook-*.whl
set -euo pipefail
package="$(realpath "$1")"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/python -m pip install --quiet "$package"
venv/bin/python -m pip check
venv/bin/genbook data show digits
venv/bin/genbook train autoencoder --steps 5 --out model
venv/bin/genbook sample model/model.safetensors --out samples.png
venv/bin/python -W error - "$(basename "$package")" <<'EOF'
import importlib
import pkgutil
import sys
import warnings
from importlib.metadata import metadata

warnings.filterwarnings("ignore", "No ccache found")  # Paddle says so at every import
import genbook

assert sys.prefix in genbook.__file__, genbook.__file__
assert metadata("genbook")["Version"] == genbook.__version__
assert f"-{genbook.__version__}" in sys.argv[1]
GRADING = "genbook.lab.assignments."  # needs genbook[grading]
for module in pkgutil.walk_packages(genbook.__path__, "genbook."):
    if not module.name.startswith(GRADING) and ".standins" not in module.name:
        importlib.import_module(module.name)
print("the package works: genbook", genbook.__version__)
EOF
