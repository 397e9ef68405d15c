"""RNNsearch and Seq2Seq from PyTorch's own layers, to compare the zoo's training speed with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.data.batches.base import Seq2SeqBatch
from zoo.models.rnnsearch import RNNsearchConfig
from zoo.models.seq2seq import Seq2SeqConfig


class TorchSeq2Seq(nn.Module):
    """Two LSTMs of cuDNN's and oneDNN's kind, and a softmax over the top layer of the second."""

    def __init__(self, c: Seq2SeqConfig):
        super().__init__()
        self.source_embedding = nn.Embedding(c.source_vocabulary, c.embedding)
        self.target_embedding = nn.Embedding(c.target_vocabulary, c.embedding)
        self.encoder = nn.LSTM(c.embedding, c.width, c.layers, batch_first=True)
        self.decoder = nn.LSTM(c.embedding, c.width, c.layers, batch_first=True)
        self.output = nn.Linear(c.width, c.target_vocabulary, bias=False)

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        _, states = self.encoder(self.source_embedding(source.flip(1)))
        return self.output(self.decoder(self.target_embedding(inputs), states)[0])


class TorchRNNsearch(nn.Module):
    """A bidirectional GRU, and a GRU cell in a loop over the target that attends to it. The read-out, which no step
    waits for, stands behind the loop, as the keys stand before it."""

    def __init__(self, c: RNNsearchConfig):
        super().__init__()
        self.source_embedding = nn.Embedding(c.source_vocabulary, c.embedding)
        self.target_embedding = nn.Embedding(c.target_vocabulary, c.embedding)
        self.encoder = nn.GRU(c.embedding, c.width, bidirectional=True, batch_first=True)
        self.initial = nn.Linear(c.width, c.width)
        self.keys = nn.Linear(2 * c.width, c.alignment, bias=False)
        self.query = nn.Linear(c.width, c.alignment, bias=False)
        self.energy = nn.Linear(c.alignment, 1, bias=False)
        self.decoder = nn.GRUCell(c.embedding + 2 * c.width, c.width)
        self.deep = nn.Linear(c.width + c.embedding + 2 * c.width, 2 * c.maxout)
        self.output = nn.Linear(c.maxout, c.target_vocabulary)

    def forward(self, source: Tensor, inputs: Tensor) -> Tensor:
        annotations, (_, first) = self.encoder(self.source_embedding(source))
        keys, words = self.keys(annotations), self.target_embedding(inputs)
        state = torch.tanh(self.initial(first))
        states, contexts = [], []
        for word in words.unbind(1):
            scores = self.energy(torch.tanh(self.query(state)[:, None] + keys))[..., 0]
            context = torch.bmm(scores.softmax(dim=-1)[:, None], annotations)[:, 0]
            states.append(state)
            contexts.append(context)
            state = self.decoder(torch.cat([word, context], dim=-1), state)
        deep = self.deep(torch.cat([torch.stack(states, 1), words, torch.stack(contexts, 1)], dim=-1))
        return self.output(deep.unflatten(-1, (-1, 2)).amax(dim=-1))


def dtypes() -> tuple[str, ...]:
    """Those that a recurrent layer takes here: oneDNN has no bfloat16 LSTM for processors without AVX-512."""
    low = torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    return ("float32", "bfloat16") if low else ("float32",)


MODELS = {"seq2seq": TorchSeq2Seq, "rnnsearch": TorchRNNsearch}


def updates(
    name: str, config: Seq2SeqConfig | RNNsearchConfig, rate: float, clip: float, batch: Seq2SeqBatch
) -> tuple[Callable[[], float], int]:
    """One update of a fresh model on `batch`, again and again, and how many parameters it has.

    The update gives its loss as a number, and with that waits for the device. In bfloat16, autocast. PyTorch takes the
    threads that it takes by itself, one for each core that the process may use.
    """
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MODELS[name](config).to(device)
    adam = torch.optim.Adam(model.parameters(), rate, fused=True)
    source, inputs, labels = (
        torch.from_numpy(np.asarray(ids, np.int64)).to(device) for ids in (batch.source, batch.inputs, batch.labels)
    )

    def update() -> float:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            logits = model(source, inputs)
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        adam.step()
        return loss.item()

    return update, sum(p.numel() for p in model.parameters())
