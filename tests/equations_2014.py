"""The papers of 2014 in float64 NumPy, written from their equations: one sentence, one step at a time, no padding.

Parameters come as the trees of the zoo's modules: inputs `[E, gates, N]`, recurrent kernels `[N, gates, N]`.
"""

import jax
import numpy as np

PAD, BOS, EOS = 0, 1, 2


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def lstm(p, x, h, c):
    """Graves 2013, eqs. 7 to 11, without peepholes."""
    w, u, b = p["input"]["kernel"], p["gates"], p["bias"]
    i = sigmoid(x @ w[:, 0] + h @ u[:, 0] + b[0])
    f = sigmoid(x @ w[:, 1] + h @ u[:, 1] + b[1])
    c = f * c + i * np.tanh(x @ w[:, 2] + h @ u[:, 2] + b[2])
    o = sigmoid(x @ w[:, 3] + h @ u[:, 3] + b[3])
    return o * np.tanh(c), c


def gate(p, name, index, x, h, context=0.0):
    return x @ p["input"]["kernel"][:, index] + h @ name + p["bias"][index] + context


def gru_cho(p, x, h, context=(0.0, 0.0, 0.0)):
    """Cho et al. 2014, eqs. 5 to 8."""
    z = sigmoid(gate(p, p["gates"][:, 0], 0, x, h, context[0]))
    r = sigmoid(gate(p, p["gates"][:, 1], 1, x, h, context[1]))
    candidate = np.tanh(gate(p, p["candidate"][:, 0], 2, x, r * h, context[2]))
    return z * h + (1 - z) * candidate


def gru_bahdanau(p, x, h, context=(0.0, 0.0, 0.0)):
    """Bahdanau et al. 2015, A.1.1."""
    z = sigmoid(gate(p, p["gates"][:, 0], 0, x, h, context[0]))
    r = sigmoid(gate(p, p["gates"][:, 1], 1, x, h, context[1]))
    candidate = np.tanh(gate(p, p["candidate"][:, 0], 2, x, r * h, context[2]))
    return (1 - z) * h + z * candidate


def unrolled(cell, p, xs):
    """The hidden states of a layer that starts at zero; works for cells of one vector and of two."""
    state, states = (np.zeros(p["bias"].shape[1]),) * (2 if cell is lstm else 1), []
    for x in xs:
        new = cell(p, x, *state)
        state = new if cell is lstm else (new,)
        states.append(state[0])
    return np.array(states), state


def aligned(p, s, annotations):
    """Bahdanau et al. 2015, eq. 6 and A.1.2."""
    energies = [p["energy"] @ np.tanh(s @ p["query"] + h @ p["source"]["kernel"]) for h in annotations]
    return softmax(np.array(energies))


def deep_output(p, s, y, c):
    """Bahdanau et al. 2015, A.2.2, and Cho et al. 2014, appendix."""
    t = s @ p["state"]["kernel"] + p["state"]["bias"] + y @ p["word"]["kernel"] + c @ p["context"]["kernel"]
    t = np.array([max(t[2 * j], t[2 * j + 1]) for j in range(len(t) // 2)])
    if "reduce" in p:
        t = t @ p["reduce"]["kernel"]
    return t @ p["matrix"] + p["bias"]


def seq2seq(p, source, inputs, layers=2):
    """Sutskever et al. 2014, section 2 and Figure 1; the source in reverse, EOS last."""
    words = [*reversed([w for w in source if w != EOS]), EOS]
    x, states = p["source_embedding"]["table"][words], []
    for layer in range(layers):
        x, last = unrolled(lstm, p[f"encoder_{layer}"], x)
        states.append(last)
    logits = []
    for y in inputs:
        x = p["target_embedding"]["table"][y]
        for layer in range(layers):
            states[layer] = lstm(p[f"decoder_{layer}"], x, *states[layer])
            x = states[layer][0]
        logits.append(x @ p["output"])
    return np.array(logits), None


def cho(p, source, inputs):
    """Cho et al. 2014, appendix."""
    _, (h,) = unrolled(gru_cho, p["encoder"], p["source_embedding"]["table"][source])
    c = np.tanh(h @ p["summary"]["kernel"] + p["summary"]["bias"])
    h = np.tanh(c @ p["initial"]["kernel"] + p["initial"]["bias"])
    logits = []
    for word in inputs:
        y = p["target_embedding"]["table"][word]
        h = gru_cho(p["decoder"], y, h, [c @ p["context_gates"]["kernel"][:, g] for g in range(3)])
        logits.append(deep_output(p["deep_output"], h, y, c))
    return np.array(logits), None


def rnnsearch(p, source, inputs):
    """Bahdanau et al. 2015, A.2."""
    x = p["source_embedding"]["table"][source]
    ahead, _ = unrolled(gru_bahdanau, p["encoder"]["forward"], x)
    back, _ = unrolled(gru_bahdanau, p["encoder"]["backward"], x[::-1])
    annotations = np.concatenate([ahead, back[::-1]], axis=1)
    s = np.tanh(back[-1] @ p["initial"]["kernel"] + p["initial"]["bias"])
    logits, weights = [], []
    for word in inputs:
        y = p["target_embedding"]["table"][word]
        alpha = aligned(p["alignment"], s, annotations)
        c = alpha @ annotations
        logits.append(deep_output(p["deep_output"], s, y, c))
        s = gru_bahdanau(p["decoder"], y, s, [c @ p["context"][:, g] for g in range(3)])
        weights.append(alpha)
    return np.array(logits), np.array(weights)


def doubles(params):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)


def assert_gradient(loss, params, gradient, seed=0):
    """`gradient` is that of the float64 `loss`, leaf by leaf, by central differences along a random direction."""
    random, params = np.random.default_rng(seed), doubles(params)
    leaves, tree = jax.tree.flatten(params)
    for index, (path, g) in enumerate(jax.tree_util.tree_leaves_with_path(gradient)):
        direction = random.normal(size=leaves[index].shape)
        direction /= np.linalg.norm(direction)

        def moved(by, index=index, direction=direction):
            changed = leaves[index] + by * direction
            return loss(tree.unflatten([*leaves[:index], changed, *leaves[index + 1 :]]))

        difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
        error = abs((np.asarray(g, np.float64) * direction).sum() - difference)
        assert error <= 1e-5 * max(1.0, np.linalg.norm(g)), (jax.tree_util.keystr(path), error)
