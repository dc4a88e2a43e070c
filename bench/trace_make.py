#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes allocation traces (trace.h) from the published shapes of models: what loading, training and serving them ask of an
allocator, in order, on one stream.

  trace_make.py DIRECTORY [SEED]   writes NAME.trace.gz of every trace below into it; seed 1 gives those in bench/traces
  trace_make.py --check DIRECTORY  fails unless the files there are those of seed 1

Sizes are those of the tensors; which are live together follows the order of the operations of each model's published code in
PyTorch. Random is only who asks for what: sequence lengths, requests. No trace has more than 60 GiB live.
"""
import gzip
import os
import random
import sys
from collections import namedtuple

Model = namedtuple("Model", "hidden layers heads kv_heads head_dim inter vocab experts bias")

MODELS = {
    "llama3-1b": Model(2048, 16, 32, 8, 64, 8192, 128256, 0, False),
    "llama3-8b": Model(4096, 32, 32, 8, 128, 14336, 128256, 0, False),
    "qwen2-7b": Model(3584, 28, 28, 4, 128, 18944, 152064, 0, True),
    "mixtral-8x7b": Model(4096, 32, 32, 8, 128, 14336, 32000, 8, False),
}

BF16, FP32, FP8 = 2, 4, 1
PEAK_MOST = 60 << 30


class Trace:
    """Events, and which blocks are live. An ID is the least that is free, so that numbers stay small."""

    def __init__(self):
        self.lines = []
        self.sizes = {}
        self.unused = []
        self.ids = 0
        self.live = 0
        self.peak = 0

    def alloc(self, size):
        size = max(int(size), 1)
        if self.unused:
            name = self.unused.pop()
        else:
            name = self.ids
            self.ids += 1
        self.sizes[name] = size
        self.lines.append("a %d %d\n" % (name, size))
        self.live += -(-size // 512) * 512
        self.peak = max(self.peak, self.live)
        return name

    def free(self, *names):
        for name in names:
            self.live -= -(-self.sizes.pop(name) // 512) * 512
            self.unused.append(name)
            self.lines.append("f %d\n" % name)

    def replace(self, name, size):
        """The result of an operation on a block that is not needed afterwards."""
        new = self.alloc(size)
        self.free(name)
        return new

    def temporary(self, *sizes):
        self.free(*[self.alloc(size) for size in sizes])


# ---- shapes


def attention_shapes(m):
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    shapes = {
        "self_attn.k_proj.weight": kv * m.hidden,
        "self_attn.o_proj.weight": m.hidden * q,
        "self_attn.q_proj.weight": q * m.hidden,
        "self_attn.v_proj.weight": kv * m.hidden,
    }
    if m.bias:
        shapes.update({"self_attn.k_proj.bias": kv, "self_attn.q_proj.bias": q, "self_attn.v_proj.bias": kv})
    return shapes


def mlp_shapes(m):
    size = m.inter * m.hidden
    if m.experts == 0:
        return {"mlp.%s_proj.weight" % part: size for part in ("down", "gate", "up")}
    shapes = {"block_sparse_moe.gate.weight": m.experts * m.hidden}
    for i in range(m.experts):
        shapes.update({"block_sparse_moe.experts.%d.w%d.weight" % (i, part): size for part in (1, 2, 3)})
    return shapes


def layer_shapes(m):
    return {"input_layernorm.weight": m.hidden, "post_attention_layernorm.weight": m.hidden,
            **attention_shapes(m), **mlp_shapes(m)}


def checkpoint(m):
    """(layer or None, name, elements) of every tensor, in the order of the files: by name, so that layer 10 is before 2."""
    tensors = [(None, "lm_head.weight", m.vocab * m.hidden), (None, "model.embed_tokens.weight", m.vocab * m.hidden),
               (None, "model.norm.weight", m.hidden)]
    for layer in range(m.layers):
        tensors += [(layer, "model.layers.%d.%s" % (layer, name), size) for name, size in layer_shapes(m).items()]
    return sorted(tensors, key=lambda tensor: tensor[1])


def parameters(m):
    """Elements of every parameter, in the order in which the model makes them."""
    sizes = [m.vocab * m.hidden]
    for _ in range(m.layers):
        sizes += list(layer_shapes(m).values())
    return sizes + [m.hidden, m.vocab * m.hidden]


# ---- loading


def fused_group(name):
    """What the tensor of that name becomes a part of, and of how many."""
    if "self_attn" in name and "o_proj" not in name:
        return name.rsplit(".", 2)[0] + ".qkv." + name.rsplit(".", 1)[1], 3
    if ".gate_proj" in name or ".up_proj" in name:
        return name.rsplit(".", 2)[0] + ".gate_up", 2
    if ".experts." in name:
        stack = name.split(".experts.")[0]
        return (stack + ".w2", 8) if ".w2." in name else (stack + ".w13", 16)
    return None, 1


def load_fused(m, width):
    """Tensors are read one by one; those that one kernel takes together are put into one and go."""
    trace, parts = Trace(), {}
    for _, name, size in checkpoint(m):
        block = trace.alloc(size * width)
        group, count = fused_group(name)
        if group is None:
            continue
        parts.setdefault(group, []).append(block)
        if len(parts[group]) == count:
            trace.alloc(sum(trace.sizes[part] for part in parts[group]))
            trace.free(*parts.pop(group))
    assert not parts
    trace.temporary(131072 * m.head_dim * FP32)
    trace.alloc(131072 * m.head_dim * BF16)
    return trace


def load_staged(m, width):
    """The model is made empty, then every tensor comes to the device and is copied to its place."""
    trace = Trace()
    for size in parameters(m):
        trace.alloc(size * width)
    for _, _, size in checkpoint(m):
        trace.temporary(size * width)
    return trace


def load_quantized(m):
    """Every matrix comes as bf16 and becomes fp8, with a scale for each row."""
    trace = Trace()
    for _, name, size in checkpoint(m):
        block = trace.alloc(size * BF16)
        if name.endswith("proj.weight"):
            rows = size // m.hidden
            amax = trace.alloc(rows * FP32)
            scaled = trace.alloc(size * BF16)
            trace.alloc(size * FP8)
            trace.alloc(rows * FP32)
            trace.free(scaled, amax, block)
    return trace


def replace_all(m, width, new_first, passes):
    """Every tensor of a loaded model is replaced by one that is larger by a 64th (a kernel's layout, with padding)."""
    trace = Trace()
    blocks = [trace.alloc(size * width) for _, _, size in checkpoint(m)]
    for _ in range(passes):
        for i, block in enumerate(blocks):
            size = trace.sizes[block] * 65 // 64
            if new_first:
                blocks[i] = trace.replace(block, size)
            else:
                trace.free(block)
                blocks[i] = trace.alloc(size)
    return trace


# ---- a layer


def layer_forward(trace, m, x, tokens):
    """Runs one layer on the block x, which stays. Returns its output and what the backward pass needs of it."""
    q, kv, h, i = m.heads * m.head_dim, m.kv_heads * m.head_dim, m.hidden, m.inter
    new = lambda width, kind=BF16: trace.alloc(tokens * width * kind)  # noqa: E731
    saved = [new(1, FP32), new(h)]
    query, key, value = new(q), new(kv), new(kv)
    saved += [value, trace.replace(query, tokens * q * BF16), trace.replace(key, tokens * kv * BF16)]  # rotated
    saved += [new(q), new(m.heads, FP32)]
    out = new(h)
    middle = trace.replace(out, tokens * h * BF16)  # the residual added
    saved += [middle, new(1, FP32), new(h)]
    gate, up = new(i), new(i)
    saved += [gate, up, new(i), new(i)]  # gate's activation, and times up
    return trace.replace(new(h), tokens * h * BF16), saved


def linear_backward(trace, grads, elements, input_bytes):
    """The gradients of a linear layer's weight, added up in grads (None: the weight is frozen), and of its input."""
    result = trace.alloc(input_bytes)
    if grads is not None:
        grads.append(trace.alloc(elements * BF16))
    return result


def layer_backward(trace, m, grad, saved, tokens, grads):
    """Returns the gradient of the layer's input; frees grad and all that was saved."""
    q, kv, h, i = m.heads * m.head_dim, m.kv_heads * m.head_dim, m.hidden, m.inter
    (rstd1, norm1, value, query, key, attention, lse, middle, rstd2, norm2, gate, up, active, product) = saved
    d_product = linear_backward(trace, grads, h * i, tokens * i * BF16)
    trace.free(product)
    d_up, d_active = trace.alloc(tokens * i * BF16), trace.alloc(tokens * i * BF16)
    trace.free(d_product, active, up)
    d_gate = trace.replace(d_active, tokens * i * BF16)
    trace.free(gate)
    d_norm2 = linear_backward(trace, grads, h * i, tokens * h * BF16)
    trace.free(d_up)
    part = linear_backward(trace, grads, h * i, tokens * h * BF16)
    trace.free(d_gate)
    d_norm2 = trace.replace(d_norm2, tokens * h * BF16)
    trace.free(part, norm2)
    grad = trace.replace(grad, tokens * h * BF16)  # through the norm, the residual added
    trace.free(d_norm2, rstd2, middle)
    d_attention = linear_backward(trace, grads, h * q, tokens * q * BF16)
    d_query, d_key, d_value = (trace.alloc(tokens * width * BF16) for width in (q, kv, kv))
    trace.temporary(tokens * q * FP32)  # the attention's own sum
    trace.free(d_attention, attention, lse, query, key, value)
    d_query, d_key = trace.replace(d_query, tokens * q * BF16), trace.replace(d_key, tokens * kv * BF16)
    d_norm1 = linear_backward(trace, grads, h * q, tokens * h * BF16)
    for block in (d_key, d_value):
        part = linear_backward(trace, grads, h * kv, tokens * h * BF16)
        d_norm1 = trace.replace(d_norm1, tokens * h * BF16)
        trace.free(part, block)
    trace.free(d_query, norm1)
    grad = trace.replace(grad, tokens * h * BF16)
    trace.free(d_norm1, rstd1)
    return grad


def head(trace, m, x, tokens, grads):
    """The loss and its gradient at the last layer's output x, which stays."""
    normed = trace.alloc(tokens * m.hidden * BF16)
    logits = trace.alloc(tokens * m.vocab * BF16)
    wide = trace.replace(logits, tokens * m.vocab * FP32)
    softmax = trace.replace(wide, tokens * m.vocab * FP32)
    trace.temporary(4)
    d_wide = trace.replace(softmax, tokens * m.vocab * FP32)
    d_logits = trace.replace(d_wide, tokens * m.vocab * BF16)
    d_normed = linear_backward(trace, grads, m.vocab * m.hidden, tokens * m.hidden * BF16)
    trace.free(d_logits, normed)
    return trace.replace(d_normed, tokens * m.hidden * BF16)


# ---- training


def batch_tokens(rng, most):
    """Sequences of one batch, padded to the longest: most are short, some fill the window."""
    longest = max(int(most * rng.random() ** 3), 64)
    longest = -(-longest // 8) * 8
    return longest * max(1, min(8, most // longest))


def train_full(m, rng, steps):
    """All weights, with AdamW on fp32 copies; gradients go after each step."""
    trace = Trace()
    sizes = parameters(m)
    for size in sizes:
        trace.alloc(size * BF16)
    for step in range(steps):
        tokens = batch_tokens(rng, 8192)
        ids = trace.alloc(tokens * 8)
        x, inputs, layers, grads = trace.alloc(tokens * m.hidden * BF16), [], [], []
        for _ in range(m.layers):
            inputs.append(x)
            x, saved = layer_forward(trace, m, x, tokens)
            layers.append(saved)
        grad = head(trace, m, x, tokens, grads)
        trace.free(x)
        for x, saved in zip(reversed(inputs), reversed(layers)):
            grad = layer_backward(trace, m, grad, saved, tokens, grads)
            trace.free(x)
        grads.append(trace.alloc(m.vocab * m.hidden * BF16))
        trace.free(grad, ids)
        for size in sizes:
            if step == 0:
                for _ in ("copy", "mean", "variance"):
                    trace.alloc(size * FP32)
            trace.temporary(size * FP32)
        trace.free(*grads)
    return trace


def train_adapters(m, rng, steps):
    """Adapters of rank 16 beside every matrix of frozen weights; each layer is run again in the backward pass."""
    rank = 16
    trace = Trace()
    for size in parameters(m):
        trace.alloc(size * BF16)
    ends = [2 * m.hidden] * 2 + [m.hidden + m.kv_heads * m.head_dim] * 2 + [m.hidden + m.inter] * 3
    adapters = [rank * end for _ in range(m.layers) for end in ends]
    for size in adapters:
        trace.alloc(size * FP32)
    for step in range(steps):
        tokens = batch_tokens(rng, 8192)
        x, inputs, grads = trace.alloc(tokens * m.hidden * BF16), [], []
        for _ in range(m.layers):
            inputs.append(x)
            x, saved = layer_forward(trace, m, x, tokens)
            trace.free(*saved)
        grad = head(trace, m, x, tokens, None)
        trace.free(x)
        for x in reversed(inputs):
            out, saved = layer_forward(trace, m, x, tokens)
            trace.free(out)
            for end in ends:
                grads.append(trace.alloc(rank * end * FP32))
                trace.temporary(tokens * rank * BF16)
            grad = layer_backward(trace, m, grad, saved, tokens, None)
            trace.free(x)
        trace.free(grad)
        if step == 0:
            for size in adapters + adapters:
                trace.alloc(size * FP32)
        trace.free(*grads)
    return trace


# ---- serving


def run_layers(trace, m, tokens):
    """A pass without a backward one."""
    x = trace.alloc(tokens * m.hidden * BF16)
    for _ in range(m.layers):
        out, saved = layer_forward(trace, m, x, tokens)
        trace.free(x, *saved)
        x = out
    return x


def sample(trace, m, rows):
    """Logits to tokens: widened, sorted, summed up."""
    logits = trace.replace(trace.alloc(rows * m.vocab * BF16), rows * m.vocab * FP32)
    order, values = trace.alloc(rows * m.vocab * 8), trace.alloc(rows * m.vocab * FP32)
    trace.temporary(rows * m.vocab * FP32, rows * m.vocab)
    trace.free(order, values, logits)
    trace.temporary(rows * 8)


def workspaces(trace, m):
    """What graphs of decode steps keep, captured from the largest batch down, and the attention's own room."""
    trace.alloc(256 << 20)
    for batch in [256 - 16 * i for i in range(15)] + [8, 4, 2, 1]:
        trace.alloc(batch * m.hidden * BF16 * 2)
        trace.alloc(batch * 2 * m.inter * BF16)
        trace.alloc(batch * m.vocab * BF16)
        trace.temporary(batch * m.vocab * FP32)


Request = namedtuple("Request", "length left blocks")


def serve_mixed(m, rng, steps):
    """Requests come and go; each has its keys and values in blocks of 256 tokens, which it gets as it grows. Some want the
    probabilities of their whole prompt."""
    block_tokens, room = 256, 20 << 30
    block_bytes = block_tokens * 2 * m.kv_heads * m.head_dim * BF16 * m.layers
    trace, running = Trace(), []
    for size in parameters(m):
        trace.alloc(size * BF16)
    workspaces(trace, m)
    for _ in range(steps):
        used = sum(len(request.blocks) for request in running) * block_bytes
        if rng.random() < 0.3 and used < room * 3 // 4 and len(running) < 256:
            length = 16 + int(8000 * rng.random() ** 4)
            blocks = [trace.alloc(block_bytes) for _ in range(-(-length // block_tokens))]
            out = run_layers(trace, m, length)
            sample(trace, m, length if rng.random() < 0.05 and length < 2048 else 1)
            trace.free(out)
            running.append(Request(length, 4 + int(1500 * rng.random() ** 2), blocks))
        if running:
            sample(trace, m, len(running))
        # sixteen tokens of decoding by a graph, which allocates nothing
        staying = []
        for length, left, blocks in running:
            if length // block_tokens != (length + 16) // block_tokens:
                blocks.append(trace.alloc(block_bytes))
            if left > 16:
                staying.append(Request(length + 16, left - 16, blocks))
            else:
                trace.free(*blocks)
        running = staying
    return trace


def serve_growing(m, rng, requests):
    """One batch after another, whose keys and values are copied to larger tensors at each step."""
    trace = Trace()
    for size in parameters(m):
        trace.alloc(size * BF16)
    width = m.kv_heads * m.head_dim * BF16
    for _ in range(requests):
        batch = 1 << int(5 * rng.random())
        length = 16 + int(2000 * rng.random() ** 2)
        trace.free(run_layers(trace, m, batch * length))
        cache = [trace.alloc(batch * length * width) for _ in range(2 * m.layers)]
        sample(trace, m, batch)
        for _ in range(4 + int(60 * rng.random())):
            length += 1
            x = trace.alloc(batch * m.hidden * BF16)
            for i, block in enumerate(cache):
                cache[i] = trace.replace(block, batch * length * width)
                if i % 2 == 0:
                    trace.temporary(batch * 2 * m.inter * BF16)
            trace.free(x)
            sample(trace, m, batch)
        trace.free(*cache)
    return trace


# ---- all of them


def makers(seed):
    rng = lambda name: random.Random("%d %s" % (seed, name))  # noqa: E731
    m = MODELS
    return {
        "load-fused-qwen2-7b": lambda name: load_fused(m["qwen2-7b"], BF16),
        "load-fused-mixtral-8x7b-fp8": lambda name: load_fused(m["mixtral-8x7b"], FP8),
        "load-staged-llama3-8b": lambda name: load_staged(m["llama3-8b"], BF16),
        "load-quantized-llama3-8b": lambda name: load_quantized(m["llama3-8b"]),
        "replace-new-first-llama3-8b": lambda name: replace_all(m["llama3-8b"], BF16, True, 1),
        "replace-free-first-llama3-8b": lambda name: replace_all(m["llama3-8b"], BF16, False, 1),
        "replace-four-times-llama3-8b": lambda name: replace_all(m["llama3-8b"], BF16, True, 4),
        "replace-new-first-mixtral-8x7b-fp8": lambda name: replace_all(m["mixtral-8x7b"], FP8, True, 1),
        "replace-free-first-mixtral-8x7b-fp8": lambda name: replace_all(m["mixtral-8x7b"], FP8, False, 1),
        "train-full-llama3-1b": lambda name: train_full(m["llama3-1b"], rng(name), 40),
        "train-adapters-qwen2-7b": lambda name: train_adapters(m["qwen2-7b"], rng(name), 16),
        "serve-mixed-llama3-8b": lambda name: serve_mixed(m["llama3-8b"], rng(name), 1000),
        "serve-growing-qwen2-7b": lambda name: serve_growing(m["qwen2-7b"], rng(name), 40),
    }


def text(name, trace):
    head = "# %s: %d events, %.1f GiB live at most\n" % (name, len(trace.lines), trace.peak / 2**30)
    return head + "".join(trace.lines)


def write(directory, name, trace):
    assert trace.peak <= PEAK_MOST, name
    with open(os.path.join(directory, name + ".trace.gz"), "wb") as file:
        file.write(gzip.compress(text(name, trace).encode(), 9, mtime=0))
    print(text(name, trace).split("\n", 1)[0][2:])


def check(directory):
    for name, make in makers(1).items():
        with gzip.open(os.path.join(directory, name + ".trace.gz"), "rt") as file:
            if file.read() != text(name, make(name)):
                sys.exit("%s is not what trace_make.py makes" % name)


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--check":
        check(arguments[1])
    elif 1 <= len(arguments) <= 2 and not arguments[0].startswith("-"):
        for name, make in makers(int(arguments[1]) if len(arguments) == 2 else 1).items():
            write(arguments[0], name, make(name))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
