"""From files to batches: lists, frames, keypoints, sampling."""
