"""Ids with a meaning of their own, the same for every tokenizer, model and loss."""

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")  # the names of those ids, in order
NOTHING = -1  # the label of a position that predicts nothing, and what fills up a prompt: no token has it
