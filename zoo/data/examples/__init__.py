"""Where examples come from: pairs of sentences, documents and labelled examples, as text."""
