"""The errors that people read.

Belongs here: exception classes whose message is a finished sentence: what is wrong, where (dataset, file, field,
row) and the remedy. Does not belong here: anything that knows about Dagster, a model or a file format.
"""


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
