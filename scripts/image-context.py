"""Copies what the Dockerfile's build stage would see: what its COPY lines name, less what .dockerignore keeps out."""

import fnmatch
import pathlib
import shutil
import subprocess
import sys


def ignored(path: str, rules: list[str]) -> bool:
    """The last rule that means a path or a folder above it decides, as Docker does it."""
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    result = False
    for rule in rules:
        pattern = rule.lstrip("!").rstrip("/")
        if any(fnmatch.fnmatchcase(folder, pattern) for folder in above):
            result = not rule.startswith("!")
    return result


def main() -> None:
    place = pathlib.Path(sys.argv[1])
    lines = [line.strip() for line in pathlib.Path(".dockerignore").read_text().splitlines()]
    rules = [line for line in lines if line and not line.startswith("#")]
    # What is new counts, what git ignores was never written for the image.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    files = [path for path in listed.stdout.splitlines() if pathlib.Path(path).is_file() and not ignored(path, rules)]
    stage = ""
    for line in pathlib.Path("Dockerfile").read_text().splitlines():
        words = line.split()
        if line.startswith("FROM "):
            stage = words[-1]
        if not line.startswith("COPY ") or words[1].startswith("--from"):
            continue
        for source in words[1:-1]:
            found = [path for path in files if path == source or path.startswith(source + "/")]
            if not found:
                raise SystemExit(f"Dockerfile, stage {stage}: `{source}` is not in the context (.dockerignore)")
            for path in found if stage == "build" else []:
                copy = place / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


main()
