"""The head and the average over segments."""

import pytest
import torch
from torch import nn

from models.classifier import ClipClassifier, Encoder
from ops.batch import Batch


class Recorded(Encoder):
    """Returns features and a mask that the test chose."""

    feature_dim = 6

    def __init__(self, features, mask=None):
        super().__init__()
        self.features, self.mask = features, mask

    def forward(self, batch):
        return self.features

    def segment_mask(self, batch):
        return self.mask


BATCH = Batch(frames=torch.zeros(2, 4, 3, 8, 8))


def test_logits_are_the_mean_of_the_segments_logits():
    features = torch.randn(2, 4, 6)
    model = ClipClassifier(Recorded(features), num_classes=3, dropout=0.5).eval()
    expected = (features @ model.head.linear.weight.T + model.head.linear.bias).mean(dim=1)
    assert torch.allclose(model(BATCH), expected, atol=1e-6)
    assert model.num_classes == 3


def test_masked_segments_do_not_count():
    features = torch.randn(2, 4, 6)
    mask = torch.tensor([[True, True, False, False], [False] * 4])
    model = ClipClassifier(Recorded(features, mask), num_classes=3, dropout=0.0)
    whole = ClipClassifier(Recorded(features[:, :2]), num_classes=3, dropout=0.0)
    whole.head.load_state_dict(model.head.state_dict())
    assert torch.allclose(model(BATCH)[0], whole(BATCH)[0], atol=1e-6)
    assert model(BATCH)[1].isfinite().all()


def test_a_batch_may_be_a_dict():
    model = ClipClassifier(Recorded(torch.randn(2, 4, 6)), num_classes=3, dropout=0.0)
    assert torch.equal(model({"frames": BATCH.frames, "label": torch.zeros(2)}), model(BATCH))


def test_the_classifier_starts_small():
    # TSN's initialisation: every class is as likely as any other at first.
    torch.manual_seed(0)
    head = ClipClassifier(Recorded(torch.zeros(1)), num_classes=500, dropout=0.5).head
    assert head.linear.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert not head.linear.bias.any()


def test_dropout_acts_while_training_alone():
    model = ClipClassifier(Recorded(torch.ones(2, 4, 6)), num_classes=3, dropout=0.5)
    nn.init.ones_(model.head.linear.weight)
    torch.manual_seed(0)
    assert not torch.equal(model(BATCH), model(BATCH))
    assert torch.equal(model.eval()(BATCH), model(BATCH))


def test_a_frozen_encoder_keeps_its_weights_and_statistics():
    encoder = Recorded(torch.ones(2, 4, 6))
    encoder.norm = nn.BatchNorm1d(6)
    model = ClipClassifier(encoder, num_classes=3, dropout=0.5)
    model.freeze_encoder()
    model.train()
    assert not encoder.norm.training
    assert model.head.training
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
