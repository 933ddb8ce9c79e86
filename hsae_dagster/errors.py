"""The errors that people read."""

import errno


class HsaeError(Exception):
    """Base of every error meant for a person: the message says what, where and the remedy."""


class DatasetError(HsaeError):
    """A dataset's declaration or files cannot be used as they are."""


class FilesMissingError(DatasetError):
    """A declared file is not there yet, and the declaration says how to get it: nothing is wrong."""


class MethodError(HsaeError):
    """The method cannot be applied to these inputs (too few rows, one class, k > m, ...)."""


class ProviderError(HsaeError):
    """A model that was to be asked cannot be asked, or answered something that cannot be used."""


class StorageError(HsaeError):
    """A stored result is missing, incomplete or not what its manifest says."""


def refusal(error: OSError | MemoryError) -> str:
    """What the machine refused, in a sentence with the remedy; what is finished is always kept."""
    if isinstance(error, MemoryError):
        return (
            "There is not enough memory left. Free some, or choose smaller sizes in dataset.yaml (`saes`, "
            "`embedding.batch_size`), and run again; finished stages are kept."
        )
    where = " ".join(str(place) for place in (error.filename, error.filename2) if place)
    said = error.strerror or " ".join(str(error).split())
    remedy = _REMEDIES.get(error.errno or 0) or next(
        (remedy for words, remedy in _BY_WORDS.items() if words in said.lower()), _LOOK
    )
    return f"{said}{f': {where}' if where else ''}. {remedy}, and run again; finished stages are kept."


_ROOM = "Make room on that disk"
_ALLOW = "Make it readable and writable for the user that runs this"
_LOOK = "Look at that place"
_REMEDIES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Make room on that disk, or raise the limit on the size of files (`ulimit -f`)",
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.EROFS: "Choose a folder that can be written (HSAE_RESULTS_DIR)",
    errno.EMFILE: "Raise the limit on open files (`ulimit -n`)",
    errno.EIO: "The disk cannot be read there: restore the file from a copy",
}
# Libraries in other languages give the words without the number.
_BY_WORDS = {
    "no space left": _ROOM,
    "quota exceeded": _ROOM,
    "file too large": _REMEDIES[errno.EFBIG],
    "permission denied": _ALLOW,
    "read-only file system": _REMEDIES[errno.EROFS],
}
