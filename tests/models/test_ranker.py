"""The whole model: candidates scored together or alone, what a step costs, what E does."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch
from torch import Tensor

from mfn.models.batch import Batch, Features
from mfn.models.embedding import FrozenEmbedding
from mfn.models.ranker import EXTRACTORS, Ranker
from mfn.models.settings import NAMED_MODELS, BaseSettings, MfnSettings, RankerSettings

D = 4
SIZES = {"item_id": 30, "category": 9, "brand": 6, "entity": 12, "user.age": 5, "context.hour": 7}
FEATURES = Features(("item_id", "category", "brand", "entity"), ("age",), ("hour",), SIZES)
ITEMS = 33


def item_indices() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)
    indices = {
        name: torch.randint(3, SIZES[name], (ITEMS,), generator=random)
        for name in ("item_id", "category", "brand")
    }
    indices["entity"] = torch.randint(3, SIZES["entity"], (ITEMS, 3), generator=random)
    indices["entity"][:, 2] = 0
    for column in indices.values():
        column[0] = 0
    return indices


def frozen(seed: int = 1) -> FrozenEmbedding:
    random = torch.Generator().manual_seed(seed)
    vectors = {name: torch.randn(size, D, generator=random) for name, size in SIZES.items()}
    return FrozenEmbedding(
        vectors,
        {name: torch.arange(size) >= 3 for name, size in SIZES.items()},
        {name: vectors[name].mean(dim=0) for name in FEATURES.item_fields},
        {name: vectors[name].std() for name in FEATURES.item_fields},
    )


def made(settings: RankerSettings, features: Features = FEATURES, seed: int = 1) -> Ranker:
    model = Ranker(settings, features, item_indices(), D, 0.2, seed)
    random = torch.Generator().manual_seed(seed)
    centers = {
        level.name: torch.randn(
            getattr(settings, "interests", 1), D * len(level.fields), generator=random
        )
        for level in model.levels
    }
    model.load_frozen(frozen(), centers)
    return model


def batch(B: int = 5, N: int = 6, M: int = 4, seed: int = 3) -> Batch:
    random = torch.Generator().manual_seed(seed)
    length_B = torch.randint(0, N + 1, (B,), generator=random)
    length_B[0] = 0
    count_B = torch.randint(1, M + 1, (B,), generator=random)
    count_B[-1] = M
    history_BN = torch.randint(3, ITEMS, (B, N), generator=random)
    candidates_BM = torch.randint(3, ITEMS, (B, M), generator=random)
    history_BN[torch.arange(N) >= length_B[:, None]] = 0
    candidates_BM[torch.arange(M) >= count_B[:, None]] = 0
    return Batch(
        history_BN,
        length_B,
        candidates_BM,
        count_B,
        torch.randint(0, 2, (B, M), generator=random),
        torch.randint(1, 5, (B, 1), generator=random),
        torch.randint(1, 7, (B, 1), generator=random),
    )


@pytest.fixture(params=sorted(NAMED_MODELS))
def model(request: pytest.FixtureRequest) -> Ranker:
    return made(NAMED_MODELS[request.param]).double()


def one_by_one(rows: Batch) -> list[Batch]:
    return [
        Batch(
            rows.history_BN[b : b + 1],
            rows.history_length_B[b : b + 1],
            rows.candidates_BM[b : b + 1, m : m + 1],
            torch.ones(1, dtype=torch.long),
            rows.labels_BM[b : b + 1, m : m + 1],
            rows.user_fields_BP[b : b + 1],
            rows.context_fields_BS[b : b + 1],
        )
        for b in range(len(rows))
        for m in range(int(rows.candidate_count_B[b]))
    ]


def gradients(model: Ranker, rows: list[Batch]) -> dict[str, Tensor]:
    model.zero_grad()
    for one in rows:
        model.loss(one).backward()
    return {name: p.grad.to_dense() for name, p in model.named_parameters() if p.grad is not None}


def test_candidates_together_score_and_teach_as_they_do_one_by_one(model: Ranker) -> None:
    rows = batch()
    together = model(rows)[rows.candidate_mask_BM]
    alone = torch.cat([model(one).reshape(-1) for one in one_by_one(rows)])
    torch.testing.assert_close(together, alone)
    both = gradients(model, [rows]), gradients(model, one_by_one(rows))
    assert both[0].keys() == both[1].keys() == dict(model.named_parameters()).keys()
    for name, gradient in both[0].items():
        torch.testing.assert_close(gradient, both[1][name], msg=name)


def test_padding_of_histories_and_slates_changes_no_score(model: Ranker) -> None:
    rows = batch()
    wide = dataclasses.replace(
        rows,
        history_BN=torch.nn.functional.pad(rows.history_BN, (0, 3)),
        candidates_BM=torch.nn.functional.pad(rows.candidates_BM, (0, 2)),
        labels_BM=torch.nn.functional.pad(rows.labels_BM, (0, 2)),
    )
    mask = rows.candidate_mask_BM
    torch.testing.assert_close(model(rows)[mask], model(wide)[:, : mask.shape[1]][mask])
    torch.testing.assert_close(model(rows)[mask], model(rows.trimmed())[mask])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_loss_and_gradients_are_finite_without_any_history(name: str, dtype: torch.dtype) -> None:
    rows = batch()
    rows = dataclasses.replace(
        rows,
        history_BN=torch.zeros_like(rows.history_BN),
        history_length_B=torch.zeros_like(rows.history_length_B),
    )
    model = made(NAMED_MODELS[name]).to(dtype)
    assert all(torch.isfinite(g).all() for g in gradients(model, [rows]).values())


def test_embedding_gradient_holds_distinct_touched_rows_alone(model: Ranker) -> None:
    rows = batch()
    model.loss(rows).backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    touched = gradient._indices()[0]
    assert len(touched.unique()) == len(touched) < len(model.embedding.weight)


def test_a_step_costs_the_same_whatever_the_vocabulary_is_long() -> None:
    def step_seconds(size: int) -> float:
        features = dataclasses.replace(FEATURES, sizes={**SIZES, "item_id": size})
        model = Ranker(BaseSettings(), features, item_indices(), D, 0.2, 1)
        optimizer = torch.optim.SparseAdam([model.embedding.weight], lr=0.01)
        rows = batch(B=32, N=20, M=10)
        times = []
        for _ in range(15):
            start = time.perf_counter()
            optimizer.zero_grad()
            model.loss(rows).backward()
            optimizer.step()
            times.append(time.perf_counter() - start)
        return min(times)

    # A dense gradient or optimizer would make the long table's step some hundred times as slow.
    assert step_seconds(1_000_000) < 5 * step_seconds(1_000)


def test_pretrained_parts_are_frozen_and_in_no_optimizer() -> None:
    model = made(MfnSettings())
    trained = set(dict(model.named_parameters()))
    kept = set(model.state_dict()) - trained
    assert {name.rsplit(".", 1)[1] for name in kept} == {
        "centers_Kd", "weight_VD", "mean_FD", "std_F",
    }  # fmt: skip


@pytest.mark.parametrize("starts", [True, False])
def test_trainable_embedding_starts_at_the_frozen_one_where_that_was_learnt(starts: bool) -> None:
    model = made(BaseSettings(start_at_frozen=starts))
    at = model.embedding.offsets["category"]
    same = model.embedding.weight[at : at + SIZES["category"]] == frozen().vectors["category"]
    assert bool(same[3:].all()) is starts
    assert not same[:3].any()


def test_unknown_and_unlearnt_values_have_an_average_frozen_vector() -> None:
    model = made(MfnSettings())
    assert model.encoder.frozen is not None
    learnt = frozen()
    learnt.learnt["category"][7] = False
    model.encoder.frozen.load(learnt)
    place = FEATURES.item_fields.index("category")
    at = model.embedding.offsets["category"]
    weight_VD, mean_D = model.encoder.frozen.weight_VD, model.encoder.frozen.mean_FD[place]
    for index, average in ((1, True), (2, True), (7, True), (5, False)):
        part_D = weight_VD[None, at + index]
        standard = model.encoder.frozen.standardise("category", part_D, torch.tensor([True]))
        assert bool(torch.allclose(standard, torch.zeros(1, D))) is average, index
    assert torch.isfinite(mean_D).all()


def test_same_seed_same_model_and_other_seed_another() -> None:
    one, same, other = made(MfnSettings()), made(MfnSettings()), made(MfnSettings(), seed=2)
    rows = batch()
    assert torch.equal(one(rows), same(rows))
    assert not torch.equal(one(rows), other(rows))


def test_a_model_does_without_fields_that_do_not_vary() -> None:
    few = Features(("item_id", "category"), (), (), {"item_id": 30, "category": 9})
    rows = dataclasses.replace(
        batch(),
        user_fields_BP=torch.zeros(5, 0, dtype=torch.long),
        context_fields_BS=torch.zeros(5, 0, dtype=torch.long),
    )
    model = made(MfnSettings(), few)
    assert torch.isfinite(model(rows)).all()
    only_fine = Features(("item_id",), (), (), {"item_id": 30})
    assert [level.name for level in made(BaseSettings(), only_fine).levels] == ["fine"]
