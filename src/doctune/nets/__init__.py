"""Torch modules: encoders, heads and their assembly. Imports no Lightning."""
