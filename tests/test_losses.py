"""The loss of one classifier and of several."""

import pytest
import torch
import torch.nn.functional as F

from ops.losses import classifier_losses

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0]])
LABELS = torch.tensor([0, 1])


def test_one_classifier_has_the_summed_cross_entropy():
    loss, right = classifier_losses(LOGITS, LABELS)
    assert loss == F.cross_entropy(LOGITS, LABELS, reduction="sum")
    assert int(right) == 1


def test_classes_are_weighted_and_targets_smoothed():
    weights = torch.tensor([1.0, 4.0, 1.0])
    loss, _ = classifier_losses(LOGITS, LABELS, None, weights, 0.3)
    shares = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    expected = -(shares * weights * LOGITS.log_softmax(1)).sum()
    torch.testing.assert_close(loss, expected)


def test_losses_of_several_classifiers_are_added_by_weight():
    heads = torch.stack([LOGITS, -LOGITS], 1)
    loss, _ = classifier_losses(heads, LABELS, (1.0, 0.5))
    alone = [F.cross_entropy(head, LABELS, reduction="sum") for head in (LOGITS, -LOGITS)]
    torch.testing.assert_close(loss, alone[0] + 0.5 * alone[1])
    even, _ = classifier_losses(heads, LABELS)
    torch.testing.assert_close(even, alone[0] + alone[1])


def test_several_classifiers_answer_together():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    heads, labels = torch.stack([sure, unsure], 1), torch.tensor([0])
    assert int(classifier_losses(heads, labels)[1]) == 1
    assert int(classifier_losses(heads, labels, (0.1, 1.0))[1]) == 0


def test_each_classifier_needs_a_weight():
    with pytest.raises(ValueError, match="1 weights for 2 classifiers"):
        classifier_losses(torch.zeros(1, 2, 3), torch.tensor([0]), (1.0,))


def test_the_answer_has_no_gradient_and_the_loss_has():
    logits = LOGITS.clone().requires_grad_()
    loss, right = classifier_losses(logits, LABELS)
    loss.backward()
    assert not right.requires_grad
    torch.testing.assert_close(logits.grad, LOGITS.softmax(1) - F.one_hot(LABELS, 3))
