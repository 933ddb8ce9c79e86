"""The JSON object in what a model wrote, however it was wrapped.

Belongs here: thoughts and fences cut away, the first whole object found, near-JSON read, yes and no in the spellings
that models use. Does not belong here: what an object must hold (whoever asked) or the message around it
(`openai_replies`).

Nothing is guessed: what is not an object in one of these spellings is none.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

# Thoughts end with one of these; an answer follows.
_THOUGHT_ENDS = ("</think>", "</thinking>", "</thought>", "<|channel|>final<|message|>", "◁/think▷")
_THOUGHT_BEGINS = ("<think>", "<thinking>", "<thought>", "◁think▷")
_FENCED = re.compile(r"```[\w-]*\s*\n?(.*?)```", re.DOTALL)
# A model that writes this much before its object has not answered; and each brace costs a try.
MOST_TRIES = 64
_YES = {"true", "yes", "y", "t", "1"}
_NO = {"false", "no", "n", "f", "0"}
_NAMES = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class NoObjectError(ValueError):
    """What a model wrote holds no object; the message says why."""


def find_object(text: str) -> dict[str, Any]:
    """The first whole JSON object in `text`.

    Raises:
        NoObjectError: there is none.
    """
    answer = _after_thoughts(text)
    problem = ""
    for part in [*_FENCED.findall(answer), answer]:
        stripped = part.strip()
        try:
            whole = json.loads(stripped, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            problem = problem or str(error)
        else:
            if isinstance(whole, dict):
                return whole
    for found in _objects(answer):
        return found
    if problem:
        raise NoObjectError(f"is not usable JSON ({' '.join(problem.split())[:120]})")
    raise NoObjectError("is not a JSON object")


def as_boolean(value: Any) -> bool | None:
    """What a model means by true, "Yes", 1 and their like; None where it means neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        word = value.strip().strip("\"'`*.! ").casefold()
        return True if word in _YES else False if word in _NO else None
    if isinstance(value, dict):
        # {"reason": "…", "answer": true}: the one judgement in it.
        said = {as_boolean(inner) for inner in value.values() if not isinstance(inner, dict)} - {None}
        return said.pop() if len(said) == 1 else None
    return None


def _after_thoughts(text: str) -> str:
    ends = [(text.rfind(mark), mark) for mark in _THOUGHT_ENDS]
    at, mark = max(ends)
    if at >= 0:
        return text[at + len(mark) :]
    if text.lstrip().startswith(_THOUGHT_BEGINS):
        raise NoObjectError("is all thought and no answer")
    return text


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    start, tries = text.find("{"), 0
    while start >= 0 and tries < MOST_TRIES:
        tries += 1
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            if "given twice" in str(error):
                raise NoObjectError(f"is not usable JSON ({error})") from None
            balanced = _balanced(text, start)
            found = _near_json(balanced) if balanced else None
            end = start + len(balanced or "{")
        if isinstance(found, dict):
            yield found
        start = text.find("{", end if isinstance(found, dict) else start + 1)


def _balanced(text: str, start: int) -> str | None:
    """From an opening brace to its partner, quotes respected."""
    depth, quote, escaped = 0, "", False
    for place in range(start, len(text)):
        character = text[place]
        if quote:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == quote:
                quote = ""
        elif character == '"':
            quote = character
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start : place + 1]
    return None


def _near_json(text: str) -> dict[str, Any] | None:
    """An object in Python's spelling, or with a comma too many."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        value = _plain(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _plain(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        pairs = [(str(_plain(key)), _plain(value)) for key, value in zip(node.keys, node.values, strict=True) if key]
        return _distinct(pairs)
    raise ValueError("not a value")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if any(value[key] != given for key, given in pairs):
        raise ValueError("a field is given twice")
    return value
