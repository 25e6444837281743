"""Which clips are worth a look: the wrong answers given most surely, and the least sure ones."""

from dataclasses import dataclass

import numpy as np

from results.calibration import log_losses, probabilities
from results.score_files import ClipScores


@dataclass(frozen=True, slots=True, eq=False)
class ClipVerdict:
    """What was said about one clip.

    Attributes:
        row: its number in the scores.
        label: true class.
        answer: class of the greatest score.
        loss: negative log-likelihood of the true class, nats.
        entropy: of the probabilities, 0 (sure) to 1 (all classes alike).
        probabilities: (K,).
    """

    row: int
    label: int
    answer: int
    loss: float
    entropy: float
    probabilities: np.ndarray

    @property
    def is_right(self) -> bool:
        """Say whether the answer is the true class."""
        return self.answer == self.label


def judge_clips(scores: ClipScores) -> list[ClipVerdict]:
    """Return what was said about each clip, in order."""
    shares = probabilities(scores.scores, scores.kind)
    losses = log_losses(scores.labels, scores.scores, scores.kind)
    entropies = -(shares * np.log(np.maximum(shares, 1e-300))).sum(1)
    entropies /= np.log(max(shares.shape[1], 2))
    answers = scores.scores.argmax(1)
    return [
        ClipVerdict(
            row,
            int(scores.labels[row]),
            int(answers[row]),
            float(losses[row]),
            float(entropies[row]),
            shares[row],
        )
        for row in range(len(scores))
    ]


def choose_clips(
    verdicts: list[ClipVerdict], most: int
) -> tuple[list[ClipVerdict], list[ClipVerdict]]:
    """Choose up to `most` clips of each kind.

    Returns:
        Wrong ones, the greatest loss first; and those of the greatest entropy that are not among
        them, right or wrong.
    """
    wrong = sorted((v for v in verdicts if not v.is_right), key=lambda v: -v.loss)[:most]
    taken = {verdict.row for verdict in wrong}
    others = (v for v in verdicts if v.row not in taken)
    return wrong, sorted(others, key=lambda v: -v.entropy)[:most]
