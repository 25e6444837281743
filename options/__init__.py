"""The parsers of the programs, and the options themselves; `opts.py` has those of training."""
