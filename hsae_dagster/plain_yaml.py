"""YAML as people mean it: plain values only, and no field given twice.

Belongs here: the loader of every YAML file that people write. Does not belong here: what a file means, or a sentence
about a bad one (whoever reads it knows the remedy).
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml


class _OnceEach(yaml.SafeLoader):
    """Safe; two equal keys are an error with both places; `yes`, `No` and `on` are words, as in YAML 1.2.

    Classes are called so, and NO is Norway.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML looks there
        first: [
            (tag, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$") if tag.endswith(":bool") else pattern)
            for tag, pattern in resolvers
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, Any] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in first:
                line = first[key.value].line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"`{key.value}` stands here and in line {line}; keep one of them", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                first[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The value of one YAML document; None where it is empty.

    Raises:
        yaml.YAMLError: it is not YAML, asks for an object of code, or gives a key of a mapping twice.
        ValueError: an impossible date or number.
        RecursionError: brackets without end.
    """
    loader = _OnceEach(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
