"""What a model is trained for. A task owns its tokenizers, its examples, its loss and its metrics."""
