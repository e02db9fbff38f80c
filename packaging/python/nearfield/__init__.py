"""The command `nearfield`, a semantic search engine."""

import os
import sysconfig


def find_program():
    """Returns the path of the command; raises FileNotFoundError if this installation has none."""
    name = "nearfield" + (sysconfig.get_config_var("EXE") or "")
    # Where pip installs commands: for everybody, for this user, and beside the package with `pip install --target`.
    directories = [
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", scheme=sysconfig.get_preferred_scheme("user")),
        os.path.join(os.path.dirname(os.path.dirname(__file__)), "bin"),
    ]
    for directory in directories:
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError("there is no {} in {}".format(name, ", ".join(directories)))
