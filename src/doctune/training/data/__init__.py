"""LightningDataModules and their samplers."""
