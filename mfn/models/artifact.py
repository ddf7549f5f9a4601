"""Models and embeddings as safetensors and JSON: loading an artifact cannot run code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from torch import Tensor

from mfn import storage
from mfn.errors import DataRefused, Unreadable
from mfn.locations import files_at
from mfn.models.batch import Features
from mfn.models.embedding import FrozenEmbedding, Pretrained, TableStart
from mfn.models.ranker import Ranker
from mfn.models.settings import MatchesSettings, ModelSettings

TENSORS = "tensors.safetensors"


class WrongArtifact(DataRefused):
    """An artifact does not fit the splits or the settings; the message gives the difference."""


def write_tensors(folder: str, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors into one file of a folder."""
    files, path = files_at(f"{folder}/{TENSORS}")
    storage.write_bytes(files, path, as_bytes(tensors))


def as_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as a safetensors file; tensors are made contiguous, as safetensors needs."""
    content: bytes = safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()})
    return content


def read_tensors(folder: str) -> dict[str, Tensor]:
    """Read the tensors that `write_tensors` wrote into a folder.

    Raises:
        Unreadable: the file is cut short, or holds something else, such as a pickle.
    """
    files, path = files_at(f"{folder}/{TENSORS}")
    content = files.cat_file(path)
    try:
        return dict(safetensors.torch.load(content))
    except SafetensorError as error:
        raise Unreadable(
            f"{folder}/{TENSORS}: expected tensors, got something else ({error}); run the job "
            "again that made it"
        ) from error


def check_vocabularies(
    of_artifact: Mapping[str, Any], of_splits: Mapping[str, Any], path: str
) -> None:
    """Refuse an artifact that was made with other vocabularies than the splits.

    Its indices would stand for other values.

    Args:
        of_artifact: size and fingerprint of each field's vocabulary, when the artifact was made.
        of_splits: the same of the splits.
        path: of the artifact, for the message.

    Raises:
        WrongArtifact: a field's vocabulary differs.
    """
    for field, vocabulary in of_artifact.items():
        expected = of_splits.get(field)
        if vocabulary != expected:
            raise WrongArtifact(
                f"{path}: expected vocabulary {field} as in the splits, {expected}, got "
                f"{vocabulary}; run the job that made it again on these splits"
            )


def write_pretrained(folder: str, pretrained: Pretrained) -> None:
    """Write the frozen embedding E and the start of the trainable table."""
    write_tensors(
        folder,
        {
            f"{whole}.{part}.{name}": tensor
            for whole, of_whole in vars(pretrained).items()
            for part, by_field in vars(of_whole).items()
            for name, tensor in by_field.items()
        },
    )


def read_pretrained(folder: str) -> Pretrained:
    """Read the frozen embedding E and the start of the trainable table."""
    parts: dict[str, dict[str, dict[str, Tensor]]] = {
        "frozen": {"vectors": {}, "learnt": {}, "mean": {}, "std": {}},
        "start": {"vectors": {}, "learnt": {}},
    }
    for key, tensor in read_tensors(folder).items():
        whole, part, name = key.split(".", maxsplit=2)
        parts[whole][part][name] = tensor
    return Pretrained(FrozenEmbedding(**parts["frozen"]), TableStart(**parts["start"]))


def write_model(folder: str, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a model: its tensors, and a description from which `read_model` rebuilds it."""
    write_tensors(folder, tensors)
    storage.write_json(f"{folder}/{storage.MODEL}", description)


def read_model(
    folder: str, item_indices: Mapping[str, Tensor], vocabularies: Mapping[str, Any]
) -> Ranker:
    """Read a model from its folder, in eval mode.

    Args:
        folder: that `write_model` wrote.
        item_indices: the item table whose items the model will score.
        vocabularies: of that item table.

    Raises:
        WrongArtifact: the model was trained with other vocabularies, its tensors are not those of
            its description, or the folder holds other files, such as a pickle.
        Unreadable: one of its files is damaged.
    """
    _refuse_unknown_files(folder)
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
        frozen_dimension=description["frozen_dimension"],
        matches=MatchesSettings.model_validate(description["matches"]),
    )
    try:
        model.load_state_dict(read_tensors(folder))
    except RuntimeError as error:
        raise WrongArtifact(
            f"{folder}: expected the tensors that its {storage.MODEL} describes, got others: "
            f"{error}; run the job again that made it"
        ) from error
    model.eval()
    return model


def _refuse_unknown_files(folder: str) -> None:
    """Refuse files that no model has: they would not be read, but their owner may think so."""
    files, path = files_at(folder)
    names = {str(one).rstrip("/").rpartition("/")[2] for one in files.ls(path, detail=False)}
    unknown = sorted(name for name in names - {TENSORS, storage.MODEL} if not name.startswith("."))
    if unknown:
        raise WrongArtifact(
            f"{folder}: expected only {TENSORS} and {storage.MODEL}, also found "
            f"{', '.join(unknown)}; a model is never read from a pickle: remove other files"
        )
