"""Fine-tune transformers on your own documents."""

__version__ = "0.1.0"
