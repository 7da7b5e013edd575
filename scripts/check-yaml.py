"""Parses YAML files, and a chart's templates as far as they can be without Helm: what stands in braces is taken for a word, and a line that
only steers is left out."""

import pathlib
import re
import sys

import yaml


class Strict(yaml.SafeLoader):
    """A key that stands twice is an error."""


def mapping(loader, node, deep=False):
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.YAMLError(f"{node.start_mark}: {twice} stand twice")
    return loader.construct_yaml_map(node)


Strict.add_constructor("tag:yaml.org,2002:map", mapping)


def parse(path: pathlib.Path) -> list:
    text = path.read_text()
    if "templates" in path.parts:
        if text.count("{{") != text.count("}}"):
            raise yaml.YAMLError(f"{path}: braces do not match")
        opened = len(re.findall(r"\{\{-? *(?:if|with|range|define)\b", text))
        if opened != len(re.findall(r"\{\{-? *end\b", text)):
            raise yaml.YAMLError(f"{path}: an `if`, `with`, `range` or `define` has no end")
        text = re.sub(r"(?m)^\s*\{\{-?.*\}\}\s*$\n?", "", text)
        text = re.sub(r"\{\{.*?\}\}", "word", text)
    return list(yaml.load_all(text, Loader=Strict))


def main() -> None:
    for name in sys.argv[1:]:
        place = pathlib.Path(name)
        paths = [place] if place.is_file() else sorted([*place.rglob("*.yaml"), *place.rglob("*.yml")])
        for path in paths:
            if not [document for document in parse(path) if document is not None]:
                raise SystemExit(f"{path} is empty")


main()
