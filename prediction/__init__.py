"""Trained models on videos of any length: windows, events, time lines.

`Predictor(load_network(path, device)).predict("video.mp4")` returns a `VideoResult`.
"""

from prediction.predictor import Predictor, Settings

__all__ = ["Predictor", "Settings"]
