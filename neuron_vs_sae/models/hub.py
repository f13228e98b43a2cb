"""Reads the local cache of the Hugging Face hub; nothing here uses the network."""

from pathlib import Path


def commit(repo: str, revision: str | None = None) -> str | None:
    """The commit of a branch or tag (default `main`) of a model repository that is in the local cache, or None."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")
    wanted = revision or "main"
    if (cached / "snapshots" / wanted).is_dir():
        return wanted
    ref = cached / "refs" / wanted
    return ref.read_text().strip() if ref.is_file() else None
