"""Skeleton annotations in the format of PYSKL and MMAction2, to train from directly.

`annotation_set.py` opens an `AnnotationSet`: a pickle is read once, in a process of its own and
without running it (`importers/reader.py`), and kept as plain arrays (`store.py`, `table.py`).
`checks.py` names what is wrong with each clip, `choosing.py` takes the clips of splits,
`kinetics.py` knows the compressed form, `ntu.py` the text files of NTU RGB+D, `exporting.py` writes
pickles.
"""
