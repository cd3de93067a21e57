"""Labelled texts on disk: manifests, stores, splits, baselines. Imports no torch."""
