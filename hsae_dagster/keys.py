"""Keys that join the tables: every identifier of the house is made here, and only here."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


def normalise_text(text: str) -> str:
    """Fold what no reader sees: Unicode composition (NFC) and runs of white space. Case stays."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def hash_bytes(data: bytes, *, size: int = 16) -> str:
    """BLAKE2b of `data`, `size` bytes long, as lower-case hexadecimal."""
    return hashlib.blake2b(data, digest_size=size).hexdigest()


def hash_json(value: Any) -> str:
    """Hash of a JSON-like value that does not depend on the order of keys (32 hexadecimal characters)."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hash_bytes(canonical.encode("utf-8", "surrogatepass"))


def text_id(text: str) -> str:
    """The key of a text: 32 hexadecimal characters; equal for texts that differ in white space only."""
    return hash_bytes(normalise_text(text).encode("utf-8", "surrogatepass"))


def concept_id(predicate: str, definition: Mapping[str, Any] | None = None) -> str:
    """The key of a concept: its predicate, lower-cased, and what executes it (its definition) if anything does."""
    return hash_json({"predicate": normalise_text(predicate).lower(), "definition": definition})


def set_fingerprint(parts: Iterable[str], context: str) -> str:
    """Fingerprint of a set of hexadecimal keys, blind to order: (sum mod 2^128, count, context), hashed.

    The sum is additive, so a caller that holds it can add new keys without reading the old ones.
    """
    total, count = 0, 0
    for part in parts:
        total = (total + int(part, 16)) % (1 << 128)
        count += 1
    return hash_json({"sum": f"{total:032x}", "count": count, "context": context})


def unit_interval(key: str, salt: str) -> float:
    """Place `key` on [0, 1) by hash: uniform over keys, the same for ever for the same salt."""
    digest = hashlib.blake2b(f"{salt}\x00{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


@dataclass(frozen=True)
class EmbeddingSet:
    """Vectors of one length that may be compared: made by one model (with its provider), in one way.

    `set_id` is the hash of everything that shapes a vector (model, weights, dimensions, token limit, normalisation).
    """

    model: str
    dimensions: int
    set_id: str
