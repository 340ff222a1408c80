"""Writes libraries that do nothing, in place of those of CUDA that PyTorch's wheel is linked with.

With them `import torch` works on a machine that has only the wheel, for computing on the CPU: 0.6 GB instead of 3 GB.

    stub_libraries.py FOLDER_OF_TORCH_LIB OUTPUT_FOLDER

Needs gcc and readelf.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

SYSTEM = [Path(folder) for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64")]
# What a stub's functions return: cudaErrorNoDevice.
FAILS = "mov $100, %eax; ret"


def readelf(option: str, library: Path) -> list[str]:
    command = ["readelf", option, "-W", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def symbols(library: Path) -> tuple[set[tuple[str, str]], set[str]]:
    """The symbols with their versions that a library needs, and the names of those that it defines."""
    needs, defines = set(), set()
    for line in readelf("--dyn-syms", library):
        fields = line.split()
        if len(fields) < 8 or not fields[0].endswith(":"):
            continue
        name, _, version = fields[7].replace("@@", "@").partition("@")
        if fields[6] != "UND":
            defines.add(name)
        elif fields[4] != "WEAK":
            needs.add((name, version))
    return needs, defines


def system_path(name: str) -> Path | None:
    return next((folder / name for folder in SYSTEM if (folder / name).exists()), None)


def write_stub(path: Path, versions: dict[str, set[str]], unversioned: set[str]) -> None:
    """Builds a library with functions of these names."""
    names = set().union(unversioned, *versions.values())
    lines = [".text"]
    for name in sorted(names):
        lines += [f'.globl "{name}"', f'.type "{name}", @function', f'"{name}": {FAILS}']
    source, script = path.with_suffix(".s"), path.with_suffix(".map")
    source.write_text("\n".join([*lines, ".section .note.GNU-stack", ""]))
    command = ["gcc", "-shared", "-nostdlib", "-o", str(path), str(source), f"-Wl,-soname,{path.name}"]
    if versions:
        quoted = {version: " ".join(f'"{name}";' for name in sorted(of)) for version, of in versions.items()}
        script.write_text("\n".join(f"{version} {{ global: {of} }};" for version, of in quoted.items()))
        command.append(f"-Wl,--version-script,{script}")
    subprocess.run(command, check=True)


def main(torch: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    libraries = sorted([*torch.glob("*.so*"), *torch.parent.glob("_C*.so")])
    there = {library.name for library in libraries}
    linked, needs, defines = set(), set(), set()
    files_of_version = defaultdict(set)
    for library in libraries:
        linked |= {found[1] for line in readelf("-d", library) if (found := re.search(r"NEEDED.*\[(.*?)\]", line))}
        file = ""
        for line in readelf("-V", library):
            if found := re.search(r"File: (\S+)", line):
                file = found[1]
            if file and (found := re.search(r"Name: (\S+)\s+Flags", line)):
                files_of_version[found[1]].add(file)
        of_library = symbols(library)
        needs |= of_library[0]
        defines |= of_library[1]
    missing = {name for name in linked - there if system_path(name) is None and not name.startswith("ld-linux")}
    for name in linked - there - missing:
        if path := system_path(name):
            defines |= symbols(path)[1]
    versions = defaultdict(lambda: defaultdict(set))
    unversioned = set()
    for name, version in needs:
        if not version:
            if name not in defines and not name.startswith(("Py", "_Py")):
                unversioned.add(name)
            continue
        for file in files_of_version[version] & missing:
            versions[file][version].add(name)
    # Symbols without a version may be in any library.
    home = next((name for name in sorted(missing) if name.startswith("libcudart")), min(missing, default=None))
    for name in missing:
        taken = set().union(*versions[name].values()) if versions[name] else set()
        write_stub(output / name, versions[name], unversioned - taken if name == home else set())


main(Path(sys.argv[1]), Path(sys.argv[2]))
