"""Pretrained encoders and their tokenizers: the only place that knows transformers and tokenizers."""
