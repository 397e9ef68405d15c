"""The zoo computes what the library `transformers` computes, with the same numbers, in and out."""

import jax
import numpy as np
import optax
import pytest
from foreign_models import TEXT, gpt1_vocabulary, gpt2_vocabulary, json_file

from zoo.data.batches.base import LanguageBatch, Seq2SeqBatch
from zoo.data.phrases.pairs import Phrases
from zoo.data.tokenizers import EOS, SHIFT, SentencePiece
from zoo.interop import opened
from zoo.training.arrays import ArrayTraining
from zoo.workdirs import load

transformers = pytest.importorskip("transformers", reason="the counterpart of these tests: pip install 'seqzoo[hf]'")
torch = pytest.importorskip("torch", reason="the counterpart of these tests: pip install 'seqzoo[hf]'")

GPTS = {
    "gpt2": ("gpt2", {}),
    "narrow ffn": ("gpt2", {"n_inner": 40, "activation_function": "relu"}),
    "deep": ("gpt2", {"n_layer": 3, "n_head": 4, "activation_function": "gelu", "n_positions": 48}),
    "gpt1": ("openai-gpt", {}),
    "gpt1 swish": ("openai-gpt", {"afn": "silu", "n_layer": 1}),
}
MARIANS = {
    "shared": {},
    "relu, unlike sides": {"activation_function": "relu", "decoder_layers": 1, "decoder_ffn_dim": 24},
    "plain embeddings": {"scale_embedding": False, "activation_function": "gelu", "decoder_attention_heads": 4},
    "start is its own row": {"decoder_start_token_id": 3},
}


def wild(model):
    """Random parameters, none of which hides where it goes, and large enough for predictions to differ."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue  # sinusoids, which are not saved
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module", params=GPTS)
def gpt(request, tmp_path_factory):
    """A folder of `transformers`, and the model that it was saved from."""
    torch.manual_seed(0)
    kind, changes = GPTS[request.param]
    folder = tmp_path_factory.mktemp("gpt")
    size = (gpt2_vocabulary if kind == "gpt2" else gpt1_vocabulary)(folder)
    shape = {"vocab_size": size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    if kind == "gpt2":
        end = {"bos_token_id": size - 1, "eos_token_id": size - 1}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(shape | end | changes)))
    else:
        model = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**(shape | changes)))
    wild(model).save_pretrained(folder)
    return folder, model


def there(run, ids):
    """Published ids as the zoo's."""
    return opened(run.path).format.rows[0].here[np.asarray(ids)].astype(np.int32)


def train_a_step(run, batch):
    """Give `run` its parameters after an update."""
    training = ArrayTraining(run.model, optax.adam(1e-2))
    where = jax.tree.map(lambda leaf: leaf.sharding, training.shapes.params)
    training.state = training.state.replace(params=jax.device_put(run.params, where))
    training.update(batch)
    run._loaded = 1, training.state.params


def logits_of(run, ids):
    batch = LanguageBatch(ids, np.zeros_like(ids))
    return np.asarray(jax.jit(run.model.apply)({"params": run.params}, batch).logits)


def published(run, logits):
    """The zoo's logits in the order of the published rows."""
    return logits[..., there(run, np.arange(logits.shape[-1] - SHIFT))]


def test_an_imported_gpt_has_the_same_logits_and_loss(gpt):
    folder, model = gpt
    run = load(folder)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (3, 17))
    with torch.no_grad():
        output = model(torch.tensor(ids), labels=torch.tensor(ids))
    found = logits_of(run, there(run, ids))
    assert np.abs(published(run, found) - output.logits.numpy()).max() < 1e-4
    inputs = there(run, ids)
    sums = run.task.loss(run.model, run.params, LanguageBatch(inputs[:, :-1], inputs[:, 1:]))
    assert abs(float(sums.loss / sums.tokens) - float(output.loss)) < 1e-5


def test_an_imported_gpt_continues_as_the_original(gpt):
    folder, model = gpt
    changes = [("decoding.temperature", "0"), ("decoding.max_new_tokens", "9")]
    run = load(folder, changes=changes)
    (ids,) = run.task.tokenizer.encode([TEXT])
    prompt = torch.tensor([np.array(ids) - SHIFT])
    greedy = model.generate(prompt, max_new_tokens=9, do_sample=False, attention_mask=torch.ones_like(prompt))
    (expected,) = run.task.tokenizer.decode([there(run, greedy[0, prompt.shape[1] :])])
    assert run.generate([TEXT])[0].strip() == expected.strip()


def test_an_exported_gpt_is_the_same_function_after_a_step_of_training(gpt, tmp_path):
    folder, model = gpt
    run, ids = load(folder), np.random.default_rng(1).integers(0, model.config.vocab_size, (8, 9))
    inputs = there(run, ids)
    train_a_step(run, LanguageBatch(inputs[:, :-1], inputs[:, 1:]))
    again = transformers.AutoModelForCausalLM.from_pretrained(run.save(tmp_path / "out", "huggingface")).eval()
    with torch.no_grad():
        before, expected = (x(torch.tensor(ids)).logits.numpy() for x in (model, again))
    assert np.abs(before - expected).max() > 1e-2
    assert again.config.vocab_size == model.config.vocab_size
    assert np.abs(published(run, logits_of(run, there(run, ids))) - expected).max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (there(run, tokenizer(TEXT)["input_ids"]) == run.task.tokenizer.encode([TEXT])[0]).all()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """Two SentencePiece models over their own text, and the pieces of both."""
    texts = zip(*(Phrases("en", "fr", "train", 0, 200)[i] for i in range(200)), strict=True)
    pair = [SentencePiece.train(lines, 100, "unigram") for lines in texts]
    found = {t.piece(i): None for t in pair for i in range(4, t.size)}
    return pair, list(found)


@pytest.fixture(scope="module", params=MARIANS)
def marian(request, tmp_path_factory, pieces):
    folder, (pair, found) = tmp_path_factory.mktemp("marian"), pieces
    surfaces = ["</s>", "<unk>", *found[:1], "<s>", *found[1:], "<pad>"]
    json_file(folder / "vocab.json", {piece: i for i, piece in enumerate(surfaces)})
    for side, tokenizer in zip(("source", "target"), pair, strict=True):
        (folder / f"{side}.spm").write_bytes(tokenizer.model())
    json_file(folder / "tokenizer_config.json", {"source_lang": "en", "target_lang": "fr"})
    pad = len(surfaces) - 1
    config = {
        "vocab_size": len(surfaces),
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "dropout": 0.0,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "activation_function": "swish",
        "scale_embedding": True,
        "pad_token_id": pad,
        "eos_token_id": 0,
        "decoder_start_token_id": pad,
        "forced_eos_token_id": 0,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(0)
    config = transformers.MarianConfig(**(config | MARIANS[request.param]))
    model = wild(transformers.MarianMTModel(config))
    with torch.no_grad():  # that of the end is high, since a translation that is cut ends otherwise there
        model.final_logits_bias += torch.randn(model.final_logits_bias.shape)
        model.final_logits_bias[0, 0] += 4
    model.generation_config.update(bad_words_ids=[[pad]], num_beams=4, early_stopping=True, max_length=20)
    model.save_pretrained(folder)
    return folder, model


def rows_of(run, side=1):
    """The zoo's row of every row there."""
    return opened(run.path).format.specials[side].vocabulary().here


def pair_of(model, rows=3):
    random = np.random.default_rng(0)
    source = random.integers(2, model.config.vocab_size - 1, (rows, 9))
    source[:, -1] = 0
    return source, random.integers(2, model.config.vocab_size - 1, (rows, 7))


def test_an_imported_marian_has_the_same_logits_and_loss(marian):
    folder, model = marian
    run, (source, target) = load(folder), pair_of(model)
    with torch.no_grad():
        output = model(torch.tensor(source), labels=torch.tensor(target))
    here = rows_of(run)
    start = np.full((3, 1), model.config.decoder_start_token_id)
    inputs = here[np.concatenate([start, target[:, :-1]], axis=1)]
    inputs[:, 0] = 1
    batch = Seq2SeqBatch(*(x.astype(np.int32) for x in (here[source], inputs, here[target])))
    found = jax.jit(run.model.apply)({"params": run.params}, batch).logits
    assert np.abs(np.asarray(found)[..., here] - output.logits.numpy()).max() < 1e-4
    sums = run.task.loss(run.model, run.params, batch)
    assert abs(float(sums.loss / sums.tokens) - float(output.loss)) < 1e-5


@pytest.mark.parametrize("beams", [1, 4])
def test_an_imported_marian_translates_as_the_original(marian, beams):
    folder, model = marian
    changes = {"beam_size": beams, "length_penalty": 1.0, "max_length": 18, "max_extra": 18}
    run = load(folder, changes=[(f"decoding.{key}", str(value)) for key, value in changes.items()])
    lines = ["March 3, 2022", "in 12 days", "on Thursday at 5:15 p.m."]
    tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
    inputs = tokenizer(lines, return_tensors="pt", padding=True)
    encoded = rows_of(run, 0)[inputs["input_ids"][0].numpy()]
    (ours,) = run.task.tokenizers[0].encode(lines[:1])
    assert encoded.tolist()[: len(ours) + 1] == [*ours, EOS]
    found = model.generate(**inputs, num_beams=beams, max_new_tokens=19, early_stopping=True, length_penalty=1.0)
    expected = tokenizer.batch_decode(found, skip_special_tokens=True)
    ours = [best[0].tokens for best in run.translator()(lines)]
    special = {model.config.pad_token_id, model.config.eos_token_id}
    theirs = [[int(rows_of(run)[i]) for i in row[1:].tolist() if i not in special] for row in found]
    assert ours == theirs, (run.translate(lines), expected)


def test_an_exported_marian_is_the_same_function_after_a_step_of_training(marian, tmp_path):
    folder, model = marian
    run, pair = load(folder), pair_of(model, rows=8)
    here = rows_of(run)
    source, target = (here[x].astype(np.int32) for x in pair)
    batch = Seq2SeqBatch(source, target, np.roll(target, -1, axis=1))
    train_a_step(run, batch)
    again = transformers.MarianMTModel.from_pretrained(run.save(tmp_path / "out", "huggingface")).eval()
    with torch.no_grad():
        before = model(torch.tensor(pair[0]), decoder_input_ids=torch.tensor(pair[1])).logits.numpy()
        expected = again(torch.tensor(source), decoder_input_ids=torch.tensor(target)).logits.numpy()
    assert np.abs(before - expected[..., here]).max() > 1e-2
    found = np.asarray(jax.jit(run.model.apply)({"params": run.params}, batch).logits)
    kept = [row for row in range(found.shape[-1]) if row not in run.model.config.excluded_rows]
    assert np.abs(found[..., kept] - expected[..., kept]).max() < 1e-4
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    line = "March 3, 2022"
    assert tokenizer(line)["input_ids"][:-1] == run.task.tokenizers[0].encode([line])[0]
