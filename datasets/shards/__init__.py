"""Clips packed into tar files, for data sets that are too large for a disk or too many files.

`index.py` says what lies where, `members.py` and `writing.py` make a shard, `packing.py` all of
them; `fetching.py` brings shards here, `reading.py` reads frames and keypoints out of them, and
`clips.py` gives them to training as clips. docs/SHARDS.md describes the format.
"""
