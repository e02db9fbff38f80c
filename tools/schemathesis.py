#!/usr/bin/env python3
"""Installs Schemathesis, which makes requests out of a description of an HTTP interface.

Makes a virtual environment with the versions that schemathesis.txt beside this file names, and prints
its directory; the program is bin/schemathesis in it. A directory that stands there already is left
alone unless the versions have changed. May be run by several processes at once: one installs, the
others wait for it.

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
    parser.add_argument("--into", type=Path, default=ROOT / "target/schemathesis", help="directory to make")
    into = parser.parse_args().into.absolute()

    into.parent.mkdir(parents=True, exist_ok=True)
    # The lock goes with the process, however it ends; the file stays.
    with open(into.with_name(into.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = into / "installed.txt"
        if not installed.is_file() or installed.read_bytes() != REQUIREMENTS.read_bytes():
            install(into)
            # Written last: what has this file is whole.
            shutil.copyfile(REQUIREMENTS, installed)
    print(into)


def install(into: Path) -> None:
    """Makes the environment in its place: its scripts name the place they were made in."""
    print(f"installing {REQUIREMENTS.name} with pip", file=sys.stderr)
    venv.create(into, clear=True, with_pip=True)
    command = [into / "bin/python", "-m", "pip", "install", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--retries=1"]
    done = subprocess.run([*command, "-r", REQUIREMENTS], stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"pip could not install {REQUIREMENTS} (exit status {done.returncode})")
    done = subprocess.run([into / "bin/schemathesis", "--version"], stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode != 0:
        sys.exit(f"schemathesis does not run here (exit status {done.returncode})")


if __name__ == "__main__":
    main()
