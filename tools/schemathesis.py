#!/usr/bin/env python3
"""Installs Schemathesis, which generates requests from an OpenAPI description.

Creates a virtual environment with the versions pinned in schemathesis.txt and prints its directory;
the program is bin/schemathesis in it. An existing directory is left unchanged unless the pinned
versions have changed. Several processes may run this at once: one installs, the others wait.

Needs Python 3.10 with venv and pip.

    tools/schemathesis.py [--into target/schemathesis]
"""

import argparse
import fcntl
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).resolve().with_name("schemathesis.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "target/schemathesis", help="directory to create (default target/schemathesis)")
    into = parser.parse_args().into.absolute()

    into.parent.mkdir(parents=True, exist_ok=True)
    # The lock is released when the process ends, in whatever way; the file remains.
    with open(into.with_name(into.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = into / "installed.txt"
        if not installed.is_file() or installed.read_bytes() != REQUIREMENTS.read_bytes():
            install(into)
            # Written last, so its presence means that the installation is complete.
            shutil.copyfile(REQUIREMENTS, installed)
    print(into)


def install(into: Path) -> None:
    """Creates the environment at its final path, because its scripts contain that path."""
    print(f"installing {REQUIREMENTS.name} with pip", file=sys.stderr)
    venv.create(into, clear=True, with_pip=True)
    command = [into / "bin/python", "-m", "pip", "install", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--retries=1"]
    done = subprocess.run([*command, "-r", REQUIREMENTS], stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"pip could not install {REQUIREMENTS} (exit status {done.returncode})")
    done = subprocess.run([into / "bin/schemathesis", "--version"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        sys.exit(f"schemathesis does not run on this machine (exit status {done.returncode})")


if __name__ == "__main__":
    main()
