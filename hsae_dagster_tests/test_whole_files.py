"""Files that appear whole, records that know what was written, and locks that die with their process."""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.errors import refusal
from hsae_dagster.storage.files import locked, sealed, unsealed, write_atomically

HOLD = """
import sys, time
from pathlib import Path
from hsae_dagster.storage.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""
plain = st.dictionaries(
    st.text(),
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        max_leaves=8,
    ),
).filter(lambda record: "seal" not in record)


@given(plain)
def test_a_sealed_record_comes_back_as_it_was(record: dict) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "record.json"
        path.write_bytes(sealed(record))
        assert unsealed(path) == record


def test_no_flipped_bit_and_no_torn_end_is_taken_for_what_was_written(tmp_path: Path) -> None:
    record, path = {"p_value": 0.04, "number": 3, "plan": "ä" * 4}, tmp_path / "record.json"
    data = sealed(record)
    for place in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = unsealed(path)
            except ValueError:
                continue
            # The name of the seal itself may be hit, or white space: the content is what it was.
            assert {name: found[name] for name in record} == record
        path.write_bytes(data[:place])
        with pytest.raises(ValueError, match=r"."):
            unsealed(path)


def test_a_record_without_a_seal_is_none(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match="not what was written"):
        unsealed(tmp_path / "old.json")
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match="no JSON object"):
        unsealed(tmp_path / "list.json")


def test_a_lock_is_waited_for_and_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    path, told = tmp_path / "locks" / "one", []
    for seconds, end in ((0.5, None), (600, "kill")):
        holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        if end:
            holder.kill()
        began = time.monotonic()
        with locked(path, lambda: told.append("waiting")):
            assert time.monotonic() - began < 60
        holder.wait()
        holder.stdout.close()
    assert told[:1] == ["waiting"]
    assert not list(path.parent.iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/x/y"), ("No space left on device: /x/y", "Make room")),
        (PermissionError(13, "Permission denied", "/x/y"), ("/x/y", "readable and writable")),
        (OSError("polars: No space left on device (os error 28)"), ("No space left", "Make room")),
        (OSError("something else"), ("something else", "run again")),
        (MemoryError(), ("memory", "smaller")),
    ],
)
def test_what_the_machine_refuses_is_a_sentence_with_the_remedy(error: OSError, words: tuple[str, ...]) -> None:
    said = refusal(error)
    assert all(word in said for word in words)
    assert said.endswith("finished stages are kept.")
