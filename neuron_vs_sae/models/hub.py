"""Reads the local cache of the Hugging Face hub, checks that it is what it says, and explains why a download failed.

Nothing here uses the network.
"""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from neuron_vs_sae.core.errors import InputError


def commit(repo: str, revision: str | None = None) -> str | None:
    """The commit of a branch or tag (default `main`) of a model repository that is in the local cache, or None."""
    cached = _folder(repo)
    wanted = revision or "main"
    if (cached / "snapshots" / wanted).is_dir():
        return wanted
    ref = cached / "refs" / wanted
    return ref.read_text().strip() if ref.is_file() else None


def check_cached(repo: str, revision: str | None = None) -> None:
    """Raises `InputError` where a file of the repository in the local cache is not what the hub says that it is.

    The cache names a file's contents by their hash (of large files the SHA-256, of others git's SHA-1), which the hub's client
    does not look at again: a forged or damaged file would be read as if it were the right one.
    """
    wanted = commit(repo, revision)
    for file in sorted((_folder(repo) / "snapshots" / (wanted or "main")).rglob("*")):
        if file.is_symlink() and file.is_file():
            contents = file.resolve()
            known = contents.stat()
            if not _is_what_it_is_named(contents, known.st_size, known.st_mtime_ns):
                raise InputError(
                    f"{file.name} of {repo} in the local cache is not what the hub says it is: its hash is another. Delete "
                    f"{contents}, and it is downloaded again"
                )


def why(error: BaseException) -> str:
    """Why something could not be had from the hub, and what to do: one sentence, from the errors of its client.

    They come wrapped in those of the libraries that use it.
    """
    from huggingface_hub import errors

    for cause in _causes(error):
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(cause, errors.GatedRepoError):
            return "it is gated: accept its terms on its page on the hub, then log in (`hf auth login`, or HF_TOKEN)"
        if isinstance(cause, errors.RevisionNotFoundError):
            return "the hub has no such revision of it: give a branch, tag or commit that its page lists (--revision)"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return "the hub has no repository of that name, or it is private: correct the name, or log in (`hf auth login`, or HF_TOKEN)"
        if isinstance(cause, errors.RemoteEntryNotFoundError):
            return f"the hub's repository lacks a file: {_first_line(cause)}"
        if status == 429:
            return "the hub asks to wait (429, too many requests): try again in some minutes, or log in (`hf auth login`), which is allowed more"
        if isinstance(status, int) and status >= 500:
            return f"the hub fails at the moment ({status}): try again later"
        if isinstance(cause, errors.LocalEntryNotFoundError) and _is_last(cause):
            return (
                "it is not in the local cache, and the hub was not asked or not reached (HF_HUB_OFFLINE, a time-out, no network): the "
                "same command with a network goes on with what is there already"
            )
        if "Timeout" in type(cause).__name__:
            return "the hub did not answer in time: the same command goes on with what is there already"
        if type(cause).__name__ in _NETWORK:
            return "the connection to the hub broke off: the same command goes on with what is there already"
    return _first_line(error)


_NETWORK = ("ConnectError", "ReadError", "RemoteProtocolError", "ConnectionError", "ChunkedEncodingError", "ProxyError")


def _is_last(error: BaseException) -> bool:
    """Whether nothing that it was raised from says more: a refusal by the hub is found in what it was raised from."""
    return not any(getattr(cause, "response", None) is not None for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _folder(repo: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


@lru_cache(maxsize=4096)
def _is_what_it_is_named(contents: Path, size: int, modified: int) -> bool:
    """Whether the hash of a file is its name; of one whose name is no hash, nothing is known. Looked at once while it is unchanged."""
    del modified
    kind = {64: "sha256", 40: "sha1"}.get(len(contents.name))
    if kind is None or set(contents.name) - set("0123456789abcdef"):
        return True
    digest = hashlib.new(kind, b"blob %d\0" % size if kind == "sha1" else b"")
    with contents.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest() == contents.name
