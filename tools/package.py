#!/usr/bin/env python3
"""Builds the packages that contain the compiled program: npm, archive and Debian package.

    tools/package.py npm WHEEL OUT        npm packages: the launcher with the program, and the program alone
    tools/package.py archive WHEEL OUT    nearfield-VERSION-PLATFORM.tar.gz
    tools/package.py stage WHEEL OUT      the files of the Debian package, for cargo-deb

WHEEL is a wheel made by `make wheel`; all packages contain its program. Only x86-64 Linux is tested.
"""

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
# npm's names by the platform in the wheel's name.
PLATFORMS = {
    "linux_x86_64": ("linux", "x64"),
    "linux_aarch64": ("linux", "arm64"),
    "macosx_arm64": ("darwin", "arm64"),
    "macosx_x86_64": ("darwin", "x64"),
}
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")
SHELLS = {"bash": "nearfield.bash", "zsh": "_nearfield", "fish": "nearfield.fish"}


class Release:
    """What a wheel contains."""

    def __init__(self, wheel, directory):
        name = wheel.name
        self.version = name.split("-")[1]
        system = "macosx" if "macosx" in name else "linux"
        machine = next(m for m in ("x86_64", "aarch64", "arm64") if m in name.split("-")[-1])
        self.platform = f"{system}_{machine}"
        self.program = directory / "nearfield"
        with zipfile.ZipFile(wheel) as archive:
            self.program.write_bytes(archive.read(f"nearfield-{self.version}.data/scripts/nearfield"))
        self.program.chmod(0o755)


def licences():
    """Names, licences and licence texts of all crates in the program."""
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE,
        ).stdout
    )
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [p["id"] for p in metadata["packages"] if p["name"] == "nearfield"]
    used = set()
    while waiting:
        package = waiting.pop()
        if package in used:
            continue
        used.add(package)
        for dep in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                waiting.append(dep["pkg"])
    texts, listed, without = {}, [], []
    for package in sorted(metadata["packages"], key=lambda p: (p["name"], p["version"])):
        if package["id"] not in used or package["source"] is None:
            continue
        listed.append(f"{package['name']} {package['version']}: {package['license'] or package['license_file']}")
        folder = Path(package["manifest_path"]).parent
        is_licence = re.compile(r"(?i)(licen[sc]e|copying|notice|unlicense)").match
        paths = [path for path in sorted(folder.iterdir()) if is_licence(path.name) and path.is_file()]
        for path in paths:
            text = path.read_text(errors="replace").strip()
            texts.setdefault(text, []).append(f"{package['name']} {package['version']} ({path.name})")
        if not paths:
            without.append(package["name"])
    parts = ["Nearfield contains these crates:\n\n" + "\n".join(listed)]
    parts.append("These contain no text of their licence: " + ", ".join(without))
    parts += [", ".join(names) + ":\n\n" + text for text, names in texts.items()]
    return ("\n\n" + "=" * 80 + "\n\n").join(parts) + "\n"


def documents(release, directory):
    """Manual pages, completions, licences and documentation in `directory`."""
    subprocess.run([release.program, "--quiet", "man", directory / "man" / "man1"], check=True)
    completions = directory / "completions"
    completions.mkdir()
    for shell, name in SHELLS.items():
        script = subprocess.run([release.program, "completions", shell], check=True, stdout=subprocess.PIPE).stdout
        (completions / name).write_bytes(script)
    (directory / "THIRD-PARTY-LICENSES.txt").write_text(licences())
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", *LICENCES):
        shutil.copy(ROOT / name, directory)
    for name in ("docs", "demo", "deploy"):
        shutil.copytree(ROOT / name, directory / name)
    sbom = ROOT / "target" / "nearfield.cdx.json"
    if not sbom.exists():
        sys.exit(f"there is no {sbom}: run `make sbom` first")
    shutil.copy(sbom, directory / "nearfield.cdx.json")


def reproducible(info):
    """The same owner and time for every file of an archive."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = "root"
    return info


def archive(release, out, work):
    name = f"nearfield-{release.version}-{release.platform.replace('_', '-', 1)}"
    folder = work / name
    folder.mkdir()
    documents(release, folder)
    shutil.copy2(release.program, folder / "nearfield")
    path = out / f"{name}.tar.gz"
    # Without the time that gzip would record.
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            for entry in [folder, *sorted(folder.rglob("*"))]:
                tar.add(entry, entry.relative_to(work), recursive=False, filter=reproducible)
    return [path]


def pack(folder, out):
    output = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", out], cwd=folder, check=True, stdout=subprocess.PIPE
    ).stdout
    return out / output.decode().strip().splitlines()[-1]


def npm(release, out, work):
    system, machine = PLATFORMS[release.platform]
    platform_name = f"@nearfield/{system}-{machine}"
    common = {"version": release.version, "license": "Apache-2.0 OR MIT"}
    platform = work / "platform"
    (platform / "bin").mkdir(parents=True)
    shutil.copy2(release.program, platform / "bin" / "nearfield")
    for name in LICENCES:
        shutil.copy(ROOT / name, platform)
    (platform / "THIRD-PARTY-LICENSES.txt").write_text(licences())
    (platform / "package.json").write_text(json.dumps({
        "name": platform_name, **common, "description": f"The program of the package nearfield for {system} {machine}",
        "os": [system], "cpu": [machine], "files": ["bin", "THIRD-PARTY-LICENSES.txt"],
    }, indent=2))
    main = work / "main"
    main.mkdir()
    shutil.copy(PACKAGING / "npm" / "launcher.js", main)
    shutil.copy(PACKAGING / "npm" / "README.md", main)
    names = [f"@nearfield/{system}-{machine}" for system, machine in PLATFORMS.values()]
    manifest = {
        "name": "nearfield", **common, "description": "Real-time semantic search: text in, answers out",
        "bin": {"nearfield": "launcher.js"}, "files": ["launcher.js"], "engines": {"node": ">=18"},
        "optionalDependencies": {name: release.version for name in names},
    }
    (main / "package.json").write_text(json.dumps(manifest, indent=2))
    published = pack(main, out / "registry")
    # The same with this platform's program inside, to install from one file.
    manifest["optionalDependencies"] = {platform_name: release.version}
    manifest["bundleDependencies"] = [platform_name]
    (main / "package.json").write_text(json.dumps(manifest, indent=2))
    shutil.copytree(platform, main / "node_modules" / platform_name)
    bundled = pack(main, out)
    named = out / f"nearfield-{release.version}-{system}-{machine}.tgz"
    bundled.rename(named)
    return [named, published, pack(platform, out / "registry")]


def stage(release, out, work):
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    documents(release, out)
    shutil.copy2(release.program, out / "nearfield")
    return []


def main():
    if len(sys.argv) != 4 or sys.argv[1] not in ("npm", "archive", "stage"):
        sys.exit(__doc__)
    action, wheel, out = sys.argv[1], Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    if action == "npm":
        (out / "registry").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        release = Release(wheel, Path(work))
        for path in {"npm": npm, "archive": archive, "stage": stage}[action](release, out, Path(work)):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"{path.stat().st_size / 1e6:.1f} MB  sha256 {digest}  {path}")


if __name__ == "__main__":
    main()
