"""The command `nearfield`, a semantic search engine."""

import os
import sysconfig
from importlib import metadata


def _candidates(name):
    """Paths at which pip may have installed the command, the likeliest first."""
    try:
        files = metadata.distribution("nearfield").files or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (str(file.locate()) for file in files if file.name == name)
    # Beside the package: `pip install --target`.
    yield os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", name)
    yield os.path.join(sysconfig.get_path("scripts"), name)
    yield os.path.join(sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user")), name)


def find_program():
    """Returns the path of the command; raises FileNotFoundError if this installation has none."""
    name = "nearfield" + (sysconfig.get_config_var("EXE") or "")
    candidates = list(_candidates(name))
    for path in candidates:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError("this installation has no program {}: looked for {}".format(name, ", ".join(candidates)))
