"""The only folder that imports Lightning, Hydra, OmegaConf and torchmetrics: it makes runs."""
