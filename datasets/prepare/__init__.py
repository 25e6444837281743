"""Raw data to clip lists, frames and keypoint files; nothing here is needed to train."""
