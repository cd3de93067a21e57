"""Uses the exported `model/` folder; knows nothing of training."""
