"""Models and embeddings as safetensors and JSON: nothing that is loaded can run code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fsspec
import safetensors.torch
from pydantic import TypeAdapter
from torch import Tensor

from mfn import storage
from mfn.errors import DataRefused
from mfn.models.batch import Features
from mfn.models.embedding import FrozenEmbedding
from mfn.models.ranker import Ranker
from mfn.models.settings import ModelSettings

TENSORS = "tensors.safetensors"


class WrongArtifact(DataRefused):
    """An artifact does not fit what it is used with; the message names both and the difference."""


def write_tensors(folder: str, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors into a folder."""
    files, path = fsspec.url_to_fs(f"{folder}/{TENSORS}")
    storage.write_bytes(files, path, as_bytes(tensors))


def as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors in the form of safetensors, which takes none that is not contiguous."""
    content: bytes = safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()})
    return content


def read_tensors(folder: str) -> dict[str, Tensor]:
    """Read named tensors from a folder."""
    with fsspec.open(f"{folder}/{TENSORS}", "rb") as file:
        return dict(safetensors.torch.load(file.read()))


def check_vocabularies(
    made_with: Mapping[str, Any], used_with: Mapping[str, Any], what: str
) -> None:
    """Refuse an artifact whose indices mean something else than the splits' do.

    Raises:
        WrongArtifact: a field's vocabulary differs.
    """
    for field, made in made_with.items():
        used = used_with.get(field)
        if used != made:
            raise WrongArtifact(
                f"{what}: made with the vocabulary {field} of {made}, and the splits have {used}; "
                "run its job again on these splits"
            )


def write_frozen(folder: str, frozen: FrozenEmbedding) -> None:
    """Write E."""
    tensors = {}
    for part in ("vectors", "learnt", "mean", "std"):
        tensors.update({f"{part}.{name}": t for name, t in getattr(frozen, part).items()})
    write_tensors(folder, tensors)


def read_frozen(folder: str) -> FrozenEmbedding:
    """Read E."""
    parts: dict[str, dict[str, Tensor]] = {"vectors": {}, "learnt": {}, "mean": {}, "std": {}}
    for key, tensor in read_tensors(folder).items():
        part, _, name = key.partition(".")
        parts[part][name] = tensor
    return FrozenEmbedding(**parts)


def write_model(folder: str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a model: its tensors, and its description with what is needed to make it again."""
    write_tensors(folder, tensors)
    storage.write_json(f"{folder}/{storage.MODEL}", description)


def read_model(
    folder: str, item_indices: Mapping[str, Tensor], vocabularies: Mapping[str, Any]
) -> Ranker:
    """A model that was written, on the item table that it is to score.

    Raises:
        WrongArtifact: its vocabularies are not those that the item table was made with, or it
            holds a file that no model has, such as a pickle.
    """
    _refuse_strange_files(folder)
    description = storage.read_json(f"{folder}/{storage.MODEL}")
    check_vocabularies(description["schema"]["vocabularies"], vocabularies, folder)
    settings = TypeAdapter(ModelSettings).validate_python(description["settings"])
    model = Ranker(
        settings,
        Features.from_manifest(description["schema"]),
        item_indices,
        dimension=description["dimension"],
        initial_std=1.0,
        seed=0,
    )
    model.load_state_dict(read_tensors(folder))
    model.eval()
    return model


def _refuse_strange_files(folder: str) -> None:
    """Nothing of them would be read; but who puts a file there may think that it would be."""
    files, path = fsspec.url_to_fs(folder)
    names = {str(one).rstrip("/").rpartition("/")[2] for one in files.ls(path, detail=False)}
    strange = sorted(name for name in names - {TENSORS, storage.MODEL} if not name.startswith("."))
    if strange:
        raise WrongArtifact(
            f"{folder}: expected {TENSORS} and {storage.MODEL} alone, got {', '.join(strange)} "
            "beside them; a model is never read from a pickle: remove what is not ours"
        )
