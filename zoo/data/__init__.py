"""From text to batches: sources, tokenizers, batching, and the pipeline that joins them."""
