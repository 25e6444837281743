"""Trained models outside of training: what they are, in which files, and how they are run."""
