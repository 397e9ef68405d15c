"""The zoo: the line of models from Seq2Seq to GPT in JAX and Flax, with one trainer, one decoder and one command line."""

__version__ = "0.1.0"
