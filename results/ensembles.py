"""Several models as one: the weighted mean of what they say about each clip."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from errors import InputError
from results.calibration import KINDS, Kind, log_probabilities, probabilities
from results.compare import align
from results.score_files import ClipScores

Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]

# The weights of the streams of a skeleton model, by name: published as 2:1:2:1 in the order joint,
# joint motion, bone, bone motion, and as 2:2:1:1 in the order joint, bone, their motions.
# Heatmaps of joints and limbs weigh the same.
STREAM_WEIGHTS = {
    "joint": 2.0,
    "bone": 2.0,
    "limb": 2.0,
    "joint_motion": 1.0,
    "bone_motion": 1.0,
}


def stream_weights(streams: Sequence[str]) -> tuple[float, ...]:
    """Return the published weights of two or four streams, in the order of their names.

    Raises:
        InputError: a name is unknown or twice.
    """
    unknown = [name for name in streams if name not in STREAM_WEIGHTS]
    if unknown or len(set(streams)) < len(streams):
        raise InputError(
            f"streams {', '.join(streams)}: name each once, out of {', '.join(STREAM_WEIGHTS)}"
        )
    return tuple(STREAM_WEIGHTS[name] for name in streams)


def normalise_weights(weights: Sequence[float], count: int) -> np.ndarray:
    """Return (M,) weights that add up to 1.

    Raises:
        InputError: there are not `count` of them, one is negative or not finite, or all are 0.
    """
    array = np.array(weights, np.float64)
    if len(array) != count:
        raise InputError(f"{len(array)} ensemble weights for {count} models: give one for each")
    if not np.isfinite(array).all() or (array < 0).any() or not array.sum() > 0:
        shown = ", ".join(f"{weight:g}" for weight in weights)
        raise InputError(f"ensemble weights {shown}: they must be at least 0, and one above 0")
    # Divided by the largest first: the sum of huge weights would overflow.
    array /= array.max()
    return array / array.sum()


def combine(
    models: Sequence[ClipScores],
    weights: Sequence[float] | None = None,
    *,
    mean: Kind = "probabilities",
    names: Sequence[str] = (),
) -> ClipScores:
    """Return the weighted mean of what M models say about the same clips.

    Args:
        models: their clips may come in any order.
        weights: M numbers in any proportion; None weights all alike.
        mean: of probabilities, or of logits (a geometric mean of probabilities, in which the
            model of the larger logits has more to say).
        names: what to call the models in a message.

    Returns:
        Scores of kind `mean`, clips in the order of the first model.

    Raises:
        InputError: clips, labels, classes or kinds differ, weights do not fit, or the mean of
            logits is asked of probabilities.
    """
    aligned = check_mixable(models, mean, names)
    share = normalise_weights([1.0] * len(models) if weights is None else weights, len(models))
    first = aligned[0]
    stack = np.stack([_as_kind(m, mean) for m in aligned])  # (M, N, K)
    mixed = np.tensordot(share, stack, axes=1)
    groups = next((m.groups for m in aligned if m.units), None)
    protocol = next((m.protocol for m in aligned if m.protocol), "")
    split = first.split if all(m.split == first.split for m in aligned) else ""
    return ClipScores(
        first.clips, first.labels, mixed, first.classes, mean, groups, split, protocol
    )


def check_mixable(
    models: Sequence[ClipScores], mean: Kind, names: Sequence[str] = ()
) -> list[ClipScores]:
    """Return the models aligned to the first; see `combine` for what is refused."""
    if mean not in KINDS:
        raise ValueError(f"unknown mean {mean!r}: choose from {', '.join(KINDS)}")
    aligned = align(models, names)
    names = names or [f"score file {n}" for n in range(1, len(models) + 1)]
    for name, model in zip(names, aligned, strict=True):
        if model.kind != aligned[0].kind:
            raise InputError(
                f"{name} holds {model.kind} and {names[0]} {aligned[0].kind}: an ensemble needs "
                "one kind; score all models with --softmax, or all without"
            )
    if mean == "logits" and aligned[0].kind != "logits":
        raise InputError(
            f"{names[0]} holds probabilities, of which no mean of logits can be made: score the "
            "models without --softmax, or average probabilities"
        )
    return aligned


def _as_kind(model: ClipScores, kind: Kind) -> np.ndarray:
    if kind == "logits":
        return model.scores.astype(np.float64)
    mixed = probabilities(model.scores, model.kind)
    return mixed / mixed.sum(1, keepdims=True)


# ---------------------------------------------------------------- tuning


@dataclass(frozen=True, slots=True)
class TunedWeights:
    """Weights that the val list chose.

    Attributes:
        weights: M, they add up to 1.
        clips: how many val clips they were tuned on.
        loss_equal: mean log loss of these with equal weights.
        loss_tuned: and with the tuned ones.
    """

    weights: tuple[float, ...]
    clips: int
    loss_equal: float
    loss_tuned: float


def tune_weights(
    models: Sequence[ClipScores], *, mean: Kind = "probabilities", names: Sequence[str] = ()
) -> TunedWeights:
    """Find the ensemble weights of the least log loss on the val list.

    The loss of either mean is convex in the weights, so there is one minimum and no grid to
    choose; the search starts at equal weights and draws nothing, so it always ends at the same.
    Models that say the same keep equal weights.

    Raises:
        InputError: see `combine`; also when a file says that its clips are of the test list.
    """
    aligned = check_mixable(models, mean, names)
    for name, model in zip(names or map(str, range(1, len(models) + 1)), aligned, strict=True):
        if model.split != "test" and model.protocol:
            raise InputError(
                f"{name}: {model.protocol}: weights tuned on them would make the result no test; "
                "use a val list that is apart from the others"
            )
        if model.split == "test":
            raise InputError(
                f"{name} holds scores of test clips: weights tuned on them would make the result "
                "no test; give scores of the val list (test_models.py --split val --save_scores)"
            )
    count = len(aligned)
    loss = _log_mixture(aligned) if mean == "probabilities" else _logit_mixture(aligned)
    equal = np.full(count, 1 / count)
    found = minimize(
        loss,
        equal,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    weights = np.clip(found.x, 0.0, None)
    weights = np.where(weights < 1e-6, 0.0, weights)  # a bound that the solver met but for rounding
    weights /= weights.sum()
    before, after = loss(equal)[0], loss(weights)[0]
    if not (math.isfinite(after) and after < before - 1e-9):
        weights, after = equal, before
    return TunedWeights(
        tuple(float(w) for w in weights), len(aligned[0]), float(before), float(after)
    )


def refuse_tested(val: ClipScores, tested: ClipScores, name: str) -> None:
    """Make sure that what is to be tuned on is not what is tested.

    Args:
        val: scores to tune on.
        tested: scores to test with.
        name: of the file of `val`, for the message.

    Raises:
        InputError: they share clips, or their classes differ.
    """
    shared = sorted(set(val.clips) & set(tested.clips))
    if shared:
        raise InputError(
            f"{name} holds {len(shared)} clips that are also tested, such as {shared[0]!r}: what "
            "is tuned on them would make the result no test; give scores of the val list"
        )
    if val.classes != tested.classes:
        raise InputError(
            f"{name} has classes {', '.join(val.classes[:5])}, the tested scores "
            f"{', '.join(tested.classes[:5])}: give scores of one data set"
        )


def _log_mixture(models: Sequence[ClipScores]) -> Loss:
    """Return loss and gradient of a mean of probabilities, as a function of the weights."""
    rows = np.arange(len(models[0]))
    logs = np.stack([log_probabilities(m.scores, m.kind)[rows, m.labels] for m in models])  # (M, N)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        with np.errstate(divide="ignore"):
            terms = np.log(np.maximum(weights, 0))[:, None] + logs
        mixed = logsumexp(terms, axis=0)
        return float(-mixed.mean()), -np.exp(logs - mixed).mean(1)

    return loss


def _logit_mixture(models: Sequence[ClipScores]) -> Loss:
    """Return loss and gradient of a mean of logits, as a function of the weights."""
    rows, labels = np.arange(len(models[0])), models[0].labels
    logits = np.stack([m.scores.astype(np.float64) for m in models])  # (M, N, K)
    true = logits[:, rows, labels]  # (M, N)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logs = log_softmax(np.tensordot(weights, logits, axes=1), axis=1)  # (N, K)
        expected = (np.exp(logs) * logits).sum(2)
        return float(-logs[rows, labels].mean()), (expected - true).mean(1)

    return loss
