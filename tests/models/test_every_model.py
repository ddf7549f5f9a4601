"""What every named model must do, whatever it is made of.

Legend: B requests, N history steps, M candidates.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mfn.indices import FIRST_INDEX
from mfn.models import artifact
from mfn.models.aggregation import Aggregation
from mfn.models.batch import Batch
from mfn.models.din import TargetAttention
from mfn.models.embedding import fields_of
from mfn.models.extractor import Candidates, Extractor, History
from mfn.models.interest import Interest
from mfn.models.ranker import Ranker
from mfn.models.registry import EXTRACTORS
from mfn.models.settings import NAMED_MODELS, MfnWithoutCombinationSettings
from mfn.models.similarity import PretrainedCenters
from tests.models.naive import history, size, stirred
from tests.models.rows import SCHEMA, SIZES, D, batch, gradients, item_indices, made, table_start

UNORDERED = {"base", "din", "mfn_as_printed", "mfn_without_combination"}
"""Models to which the order of behaviours does not matter."""

NAMES = sorted(NAMED_MODELS)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Ranker:
    """In float64, and not as it begins."""
    one = made(NAMED_MODELS[name]).double()
    stirred(one)
    return one


def interest(name: str, width: int = 8) -> Interest:
    """R(i_c) of a named model at one level, in float64, with centers if it has any."""
    torch.manual_seed(2)
    one = Interest(NAMED_MODELS[name], size(width)).double()
    stirred(one)
    return one


def candidates(B: int, M: int = 3, dtype: torch.dtype = torch.float64) -> Candidates:
    generator = torch.Generator().manual_seed(6)
    trainable_BMd = torch.randn(B, M, 8, generator=generator)
    frozen_BMe = torch.randn(B, M, size(8).frozen_width, generator=generator)
    return Candidates(trainable_BMd.to(dtype), frozen_BMe.to(dtype))


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


def parts(name: str) -> Counter[str]:
    return Counter(
        type(part).__name__
        for part in interest(name).modules()
        if isinstance(part, Extractor | TargetAttention)
    )


def test_a_variant_of_mfn_differs_in_what_it_says_alone() -> None:
    mfn, similarity, combination = parts("mfn"), "PretrainedCenters", "Combination"
    assert mfn == Counter([similarity, combination])
    assert mfn - parts("mfn_without_combination") == Counter([combination])
    assert mfn - parts("mfn_without_similarity") == Counter([similarity])
    for variant in ("mfn_without_combination", "mfn_without_similarity"):
        assert parts(variant) < mfn
    assert parts("mfn_without_fine_level") == parts("mfn_as_printed") == mfn
    assert parts("mfn_with_target_attention") == mfn + parts("din")
    for variant, other in (
        ("mfn_with_random_centers", "RandomCenters"),
        ("mfn_without_pretrain", "RandomEmbedding"),
        ("mfn_with_random_embedding", "RandomEmbedding"),
    ):
        assert parts(variant) - mfn == Counter([other])
        assert mfn - parts(variant) == Counter([similarity])


def trained(model: Ranker) -> set[str]:
    """Names of the parameters that training changes."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_candidates_together_score_and_teach_as_they_do_one_by_one(model: Ranker) -> None:
    rows = batch()
    together = model(rows)[rows.candidate_mask_BM]
    alone = torch.cat([model(one).reshape(-1) for one in one_by_one(rows)])
    torch.testing.assert_close(together, alone)
    both = gradients(model, [rows]), gradients(model, one_by_one(rows))
    assert both[0].keys() == both[1].keys() == trained(model)
    for parameter, gradient in both[0].items():
        torch.testing.assert_close(gradient, both[1][parameter], msg=parameter)


def test_every_parameter_is_taught(model: Ranker) -> None:
    rows = batch(B=40, lengths=[n % 7 for n in range(40)])
    found = gradients(model, [rows])
    assert [name for name in trained(model) if not (name in found and found[name].any())] == []


def test_padding_of_histories_and_slates_changes_no_score(model: Ranker) -> None:
    rows = batch()
    wide = dataclasses.replace(
        rows,
        history_BN=nn.functional.pad(rows.history_BN, (0, 3)),
        candidates_BM=nn.functional.pad(rows.candidates_BM, (0, 2)),
        labels_BM=nn.functional.pad(rows.labels_BM, (0, 2)),
    )
    mask = rows.candidate_mask_BM
    torch.testing.assert_close(model(rows)[mask], model(wide)[:, : mask.shape[1]][mask])
    torch.testing.assert_close(model(rows)[mask], model(rows.trimmed())[mask])


@pytest.mark.parametrize("pad", [0, 4])
def test_what_stands_at_padded_steps_never_matters(name: str, pad: int) -> None:
    one, lengths = interest(name), [0, 1, 3, 6]
    past = history(lengths, 8, seed=1, pad=pad)
    past.trainable_BNd.requires_grad_()
    assert past.frozen_BNe is not None
    mask_BN1 = past.mask_BN[..., None]
    other = History(
        torch.where(mask_BN1, past.trainable_BNd, -50.0),
        torch.where(mask_BN1, past.frozen_BNe, -50.0),
        past.mask_BN,
    )
    readouts = torch.stack(one(past, candidates(4)))
    torch.testing.assert_close(readouts, torch.stack(one(other, candidates(4))))
    (gradient,) = torch.autograd.grad(readouts.square().sum(), past.trainable_BNd)
    assert torch.all(gradient[~past.mask_BN] == 0)
    assert torch.all(gradient[past.mask_BN].abs().sum(dim=1) > 0)


def test_the_order_of_behaviours_matters_to_those_that_say_so_alone(name: str) -> None:
    one = interest(name)
    past = history([5, 5], 8, seed=1)
    assert past.frozen_BNe is not None
    turned = History(past.trainable_BNd.flip(1), past.frozen_BNe.flip(1), past.mask_BN)
    both = zip(one(past, candidates(2)), one(turned, candidates(2)), strict=True)
    away = torch.stack([(a_BMd - b_BMd).abs().max() for a_BMd, b_BMd in both]).max()
    assert (float(away.detach()) > 1e-4) is (name not in UNORDERED)
    assert (float(away.detach()) > 1e-9) is (name not in UNORDERED)


def test_there_is_no_interest_without_a_history(name: str) -> None:
    for R_BMd in interest(name)(history([0, 2], 8, seed=1, pad=2), candidates(2)):
        assert torch.all(R_BMd[0] == 0)
        assert torch.all(R_BMd[1] != 0)


def outputs_of(model: Ranker, kind: type[nn.Module], rows: Batch) -> list[Any]:
    """What all modules of a kind give while the model scores the rows."""
    kept: list[Any] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        for module in model.modules()
        if isinstance(module, kind)
    ]
    model(rows)
    for hook in hooks:
        hook.remove()
    return kept


def test_interests_are_made_once_a_request_whatever_the_candidates(model: Ranker) -> None:
    rows = batch()
    other = dataclasses.replace(rows, candidates_BM=rows.candidates_BM.flip(0)[:, :3])
    both = outputs_of(model, Extractor, rows), outputs_of(model, Extractor, other)
    extractors = list(model.extractors())
    assert len(both[0]) == len(both[1]) == len(extractors)
    for (_, extractor), one, same in zip(extractors, *both, strict=True):
        assert one.vectors_BKd.shape[:2] == (len(rows), extractor.interests)
        assert torch.equal(one.vectors_BKd, same.vectors_BKd)


def test_only_target_attention_sees_behaviours_and_candidates_at_once(
    name: str, model: Ranker
) -> None:
    found = outputs_of(model, TargetAttention, batch())
    assert len(found) == (2 if name in ("din", "mfn_with_target_attention") else 0)
    assert all(R_BMd.shape[:2] == (5, 4) for R_BMd in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[0, 0, 0], [1, 1, 1], [0, 1, 6]], ids=str)
def test_scores_and_gradients_are_finite_for_empty_and_short_histories(
    name: str, lengths: list[int], dtype: torch.dtype
) -> None:
    rows = batch(B=3, lengths=lengths)
    one = made(NAMED_MODELS[name]).to(dtype)
    assert torch.isfinite(one(rows)).all()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(one, [rows]).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("comes_back", [1.0, 1e6])
def test_gradients_stay_finite_however_large_the_vectors_and_what_comes_back(
    name: str, dtype: torch.dtype, comes_back: float
) -> None:
    one = interest(name).to(dtype)
    past = history([0, 1, 6], 8, seed=1, pad=2, scale=1e4)
    assert past.frozen_BNe is not None
    trainable_BNd = past.trainable_BNd.to(dtype).requires_grad_()
    large = History(trainable_BNd, past.frozen_BNe.to(dtype), past.mask_BN)
    readouts = torch.stack(one(large, candidates(3, dtype=dtype)))
    (comes_back * readouts).sum().backward()
    found = [trainable_BNd.grad, *(parameter.grad for parameter in one.parameters())]
    assert all(gradient is None or torch.isfinite(gradient).all() for gradient in found)
    assert trainable_BNd.grad is not None


def test_same_seed_same_model_and_other_seed_another(name: str) -> None:
    torch.manual_seed(1)
    one = made(NAMED_MODELS[name])
    torch.manual_seed(2)
    same, other = made(NAMED_MODELS[name]), made(NAMED_MODELS[name], seed=2)
    rows = batch()
    assert all(torch.equal(a, same.state_dict()[key]) for key, a in one.state_dict().items())
    assert torch.equal(one(rows), one(rows))
    assert torch.equal(one(rows), same(rows))
    assert not torch.equal(one(rows), other(rows))


def test_a_model_that_was_written_and_read_scores_the_same(name: str, tmp_path: Path) -> None:
    one = made(NAMED_MODELS[name], seed=9)
    stirred(one)
    description: dict[str, Any] = {
        "settings": one.settings.model_dump(mode="json"),
        "schema": SCHEMA,
        "dimension": D,
        "frozen_dimension": D,
        "matches": {},
    }
    artifact.write_model(str(tmp_path), one.state_dict(), description)
    read = artifact.read_model(str(tmp_path), item_indices(), SCHEMA["vocabularies"])
    assert read.settings == one.settings
    with torch.no_grad():
        assert torch.equal(read(batch()), one.eval()(batch()))


def test_every_model_starts_at_the_frozen_embedding_where_that_was_learnt_alone(name: str) -> None:
    learnt = table_start()
    for field, of_field in learnt.learnt.items():
        of_field[4] = False
        # An index that is new since E was learnt.
        learnt.vectors[field] = learnt.vectors[field][:-1]
        learnt.learnt[field] = of_field[:-1]
    one = made(NAMED_MODELS[name].model_copy(update={"start_at_pretrained": False}))
    drawn_VD = one.embedding.weight.detach().clone()
    one.start_at(learnt)
    starts = fields_of(one.embedding.weight.detach(), SIZES)
    drawn = fields_of(drawn_VD, SIZES)
    for field, rows in SIZES.items():
        for index in range(rows):
            is_learnt = index >= FIRST_INDEX and index not in (4, rows - 1)
            at = learnt.vectors[field] if is_learnt else drawn[field]
            assert torch.equal(starts[field][index], at[index]), (field, index)
    # The control: at an index that was learnt, what is drawn is something else.
    assert all(not torch.equal(drawn[field][3], starts[field][3]) for field in SIZES)


@pytest.mark.parametrize("product", [True, False])
def test_the_head_of_every_model_has_the_product_where_it_is_asked_for(
    name: str, product: bool
) -> None:
    """Eq. 12 by hand: of each level the candidate, each readout, and its product with it."""
    model = made(NAMED_MODELS[name].model_copy(update={"product": product})).double()
    stirred(model)
    rows = batch(lengths=[0, 3, 1, 6, 2])
    looked, scores = model.look_up(rows), model(rows)
    R_of_levels = dict(zip(model.settings.levels, outputs_of(model, Interest, rows), strict=True))
    head = model.head
    request = head.request
    assert request is not None

    def by_hand(b: int, m: int, times: float = 1.0) -> Tensor:
        inputs = [of_level.trainable_BMd[b, m] for of_level in looked.candidates.values()]
        for level, readouts in R_of_levels.items():
            i_d = looked.candidates[level].trainable_BMd[b, m]
            for R_BMd in readouts:
                inputs += [R_BMd[b, m], times * R_BMd[b, m] * i_d] if product else [R_BMd[b, m]]
        hidden = head.candidate.weight @ torch.cat(inputs) + head.candidate.bias
        hidden = hidden + request.weight @ looked.request_Bx[b]
        for layer in head.rest:
            assert isinstance(layer, nn.Linear)
            hidden = layer.weight @ hidden.clamp(min=0) + layer.bias
        return hidden[0]

    for b, m in ((1, 0), (4, 3)):
        torch.testing.assert_close(scores[b, m], by_hand(b, m))
        # The control: without the product's values the score is another.
        away = (scores[b, m] - by_hand(b, m, times=0.0)).abs()
        assert (float(away.detach()) > 1e-3) is product


def test_no_step_draws_random_numbers(model: Ranker) -> None:
    """A training that resumes from a checkpoint would draw others."""
    model.train()
    before = torch.get_rng_state()
    model.loss(batch()).backward()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert not torch.equal(torch.get_rng_state(), before)  # the control: a draw is seen


def test_the_sum_of_the_readouts_is_equation_11() -> None:
    past = history([0, 2, 5], 8, seed=1)
    for name in ("mfn", "mfn_with_target_attention"):
        torch.manual_seed(2)
        apart = Interest(NAMED_MODELS[name], size(8)).double()
        torch.manual_seed(2)
        settings = NAMED_MODELS[name].model_copy(update={"readouts": "sum"})
        summed = Interest(settings, size(8)).double()
        parts, (total,) = apart(past, candidates(3)), summed(past, candidates(3))
        assert len(parts) == apart.readouts == len(EXTRACTORS[name])
        assert summed.readouts == 1
        torch.testing.assert_close(total, torch.stack(parts).sum(dim=0))
        # The control: no readout alone is the sum.
        assert not any(torch.allclose(total, part) for part in parts)


def test_an_early_behaviour_of_another_interest_does_not_crowd_out_the_user_s_own() -> None:
    """Phantoms: without its mass, an interest that the user hardly has weighs as much as others."""
    weights = {}
    for mass_in_attention in (True, False):
        torch.manual_seed(2)
        settings = MfnWithoutCombinationSettings(
            similarity_interests=2, mass_in_attention=mass_in_attention
        )
        one = Interest(settings, size(2))
        similarity, aggregation = one.extractors[0], one.aggregations[0]
        assert isinstance(similarity, PretrainedCenters)
        assert isinstance(aggregation, Aggregation)
        assert aggregation.attention is not None
        similarity.load(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
        # Nine behaviours at the first center, and almost nothing at the second.
        frozen_BNe = torch.tensor([[1.0, 0.0]]).expand(1, 9, 2)
        past = History(torch.randn(1, 9, 2), frozen_BNe, torch.ones(1, 9, dtype=torch.bool))
        interests = similarity(past)
        assert interests.vectors_BKd.abs().sum(dim=2).gt(0).all()  # both are there
        weights[mass_in_attention] = aggregation.attention(interests, torch.randn(1, 1, 2))[0, 0]
    assert float(weights[True][1].detach()) < 0.01
    assert float(weights[False][1].detach()) > 0.2
