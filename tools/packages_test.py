#!/usr/bin/env python3
"""Times the way from a package to the first answers, as a user without a compiler goes it.

    tools/packages_test.py DIST MODELS

Installs the wheel with pip into a fresh environment, and runs the npm package with npx, each with an empty home directory
and without Rust in PATH; `nearfield demo` fetches the model as it does for a user. Prints seconds and sizes. MODELS is
used only to measure once more without the download.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(arguments, environment, directory):
    started = time.monotonic()
    done = subprocess.run(arguments, env=environment, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}")
    return time.monotonic() - started, done.stdout


def environment(home, *programs):
    """No variables of the caller but those of package mirrors, and only the directories of `programs` and the system."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "npm_config_", "SSL_", "NODE_EXTRA"))}
    directories = [str(Path(shutil.which(program)).parent) for program in programs]
    path = ":".join([*directories, "/usr/bin", "/bin"])
    if shutil.which("cargo", path=path):
        sys.exit(f"there is a compiler in {path}")
    return {**kept, "HOME": str(home), "PATH": path}


def home(work, models, *programs):
    """A user's environment with an empty home directory in `work`, and with the models of a directory, if it is given."""
    variables = environment(work, *programs)
    variables["NEARFIELD_HOME"] = str(work / "nearfield")
    if models:
        shutil.copytree(models, work / "nearfield" / "models")
    return variables


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    dist, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    wheel = next(dist.glob("*.whl"))
    package = next(dist.glob("nearfield-*.tgz"))
    for path in sorted(path for path in dist.iterdir() if path.is_file() and path.name != "SHA256SUMS"):
        print(f"{path.stat().st_size / 1e6:6.1f} MB  {path.name}")
    for models, model in ((None, "with the model's download"), (models, "with the model in place")):
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            variables = home(work, models, "python3")
            made, _ = run(["python3", "-m", "venv", "env"], variables, work)
            installed, _ = run([work / "env/bin/pip", "install", "--quiet", "--no-index", wheel], variables, work)
            answered, output = run([work / "env/bin/nearfield", "demo", "--no-serve"], variables, work)
            assert "score" in output, output
            print(f"pip, {model}: {installed + answered:.1f} s to the answers (install {installed:.1f}, demo {answered:.1f}); venv before {made:.1f}")
        with tempfile.TemporaryDirectory() as work:
            work = Path(work)
            variables = home(work, models, "npx", "python3")
            shutil.copy(package, work)
            answered, output = run(["npx", "--yes", f"./{package.name}", "demo", "--no-serve"], variables, work)
            assert "score" in output, output
            print(f"npx, {model}: {answered:.1f} s to the answers")


if __name__ == "__main__":
    main()
