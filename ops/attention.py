"""Attention between the segments of a clip."""

from torch import Tensor, nn

from errors import InputError

SCOPES = ("clip", "frame")


class SegmentAttention(nn.Module):
    """Multi-head self-attention over the segments of each clip.

    Args:
        dim: E, features per segment; a multiple of `num_heads`.
        num_heads: heads.
        dropout: on the attention weights, while training, scope "clip".
        scope: "clip": every segment attends to all segments of its clip. "frame": each attends
            to itself alone, as published models do (their sequences had length 1). The weights
            are then exactly 1 whatever the query and key say, so only the value and output
            projections are computed. Published training dropped those single weights, which
            zeroes or doubles a whole head of a frame; that is not repeated here.

    Both scopes have the parameters of `nn.MultiheadAttention`, so weights load in either.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float, scope: str = "clip") -> None:
        super().__init__()
        if scope not in SCOPES:
            raise ValueError(f"attention scope {scope!r} is none of {', '.join(SCOPES)}")
        if dim % num_heads:
            raise InputError(
                f"attention over {dim} features cannot have {num_heads} heads: "
                f"the features must be a multiple of {num_heads}"
            )
        self.scope = scope
        self.layer = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)

    def forward(self, segments: Tensor, missing: Tensor | None = None) -> Tensor:
        """Map (B, T, E) to (B, T, E).

        Args:
            segments: features.
            missing: (B, T) bool, segments that no other segment may attend to. A clip in which
                every segment is missing is treated as if none were.
        """
        if self.scope == "frame":
            return self._attend_to_self(segments)
        if missing is not None:
            missing = missing & ~missing.all(dim=1, keepdim=True)
        attended, _ = self.layer(
            segments, segments, segments, key_padding_mask=missing, need_weights=False
        )
        return attended

    def _attend_to_self(self, segments: Tensor) -> Tensor:
        dim = segments.shape[-1]
        weight, bias = self.layer.in_proj_weight[2 * dim :], self.layer.in_proj_bias[2 * dim :]
        return self.layer.out_proj(nn.functional.linear(segments, weight, bias))
