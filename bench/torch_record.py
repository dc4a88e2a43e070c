#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records allocation traces (trace.h) of small real programs from PyTorch's memory snapshots. Needs PyTorch and a GPU.

  torch_record.py DIRECTORY    writes recorded-NAME.trace.gz of every program below

What another PyTorch, another GPU or other kernels ask for differs: the traces that were recorded are kept, not made anew.
"""
import gc
import random
import sys

import torch
from torch import nn
from torch.nn import functional as F

from trace_make import Trace, write

EVENTS_MOST = 1000000


# ---- a model


class Block(nn.Module):
    """A layer as in Llama: grouped queries, rotary positions, gated feed-forward."""

    def __init__(self, hidden, heads, kv_heads, inter):
        super().__init__()
        self.heads, self.kv_heads, self.width = heads, kv_heads, hidden // heads
        self.norm1, self.norm2 = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.q = nn.Linear(hidden, hidden, bias=False)
        self.k = nn.Linear(hidden, kv_heads * self.width, bias=False)
        self.v = nn.Linear(hidden, kv_heads * self.width, bias=False)
        self.o = nn.Linear(hidden, hidden, bias=False)
        self.gate = nn.Linear(hidden, inter, bias=False)
        self.up = nn.Linear(hidden, inter, bias=False)
        self.down = nn.Linear(inter, hidden, bias=False)

    def rotate(self, x, at):
        half = self.width // 2
        angles = torch.arange(at, at + x.shape[2], device=x.device)[:, None] / 10000 ** (
            torch.arange(half, device=x.device) / half)
        sine, cosine = angles.sin().to(x.dtype), angles.cos().to(x.dtype)
        left, right = x[..., :half], x[..., half:]
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], -1)

    def split(self, x, heads):
        return x.view(x.shape[0], x.shape[1], heads, self.width).transpose(1, 2)

    def forward(self, x, cache=None):
        y = self.norm1(x)
        q, k, v = self.split(self.q(y), self.heads), self.split(self.k(y), self.kv_heads), self.split(self.v(y), self.kv_heads)
        at = 0 if cache is None else cache[0].shape[2]
        q, k = self.rotate(q, at), self.rotate(k, at)
        if cache is not None:
            k, v = torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2)
        times = self.heads // self.kv_heads
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(times, 1), v.repeat_interleave(times, 1),
                                           is_causal=q.shape[2] > 1)
        x = x + self.o(y.transpose(1, 2).reshape(x.shape))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y)), (k, v)


class Decoder(nn.Module):
    def __init__(self, hidden=2048, layers=10, heads=16, kv_heads=4, inter=5632, vocab=32000):
        super().__init__()
        self.embed = nn.Embedding(vocab, hidden)
        self.blocks = nn.ModuleList([Block(hidden, heads, kv_heads, inter) for _ in range(layers)])
        self.norm = nn.RMSNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)
        self.vocab = vocab

    def forward(self, ids, caches=None):
        x, kept = self.embed(ids), []
        for i, block in enumerate(self.blocks):
            x, cache = block(x, None if caches is None else caches[i])
            kept.append(cache)
        return self.norm(x), kept


def decoder():
    with torch.device("cuda"):
        return Decoder().to(torch.bfloat16)


def ids(batch, length, vocab):
    return torch.randint(vocab, (batch, length), device="cuda")


# ---- programs


def train_decoder(rng):
    """AdamW on all weights, each batch of another length."""
    model = decoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(12):
        length = 64 + int(2000 * rng.random() ** 2)
        batch = max(1, 6000 // length)
        tokens = ids(batch, length + 1, model.vocab)
        logits = model.head(model(tokens[:, :-1])[0]).float()
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        del logits
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def train_encoder(rng):
    """PyTorch's own encoder under autocast, with momentum; padded batches."""
    layer = nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True)
    model = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(16):
        length = 32 + int(480 * rng.random())
        x = torch.randn(max(1, 16384 // length), length, 1024, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def generate(rng):
    """Batches of requests one after another; keys and values grow by torch.cat."""
    model = decoder()
    for _ in range(6):
        batch, length = 1 << int(4 * rng.random()), 16 + int(1500 * rng.random() ** 2)
        tokens = ids(batch, length, model.vocab)
        x, caches = model(tokens)
        for _ in range(8 + int(16 * rng.random())):
            probabilities = torch.softmax(model.head(x[:, -1]).float() / 0.8, -1)
            token = torch.multinomial(probabilities, 1)
            x, caches = model(token, caches)


@torch.no_grad()
def replace_weights(rng):
    """Each weight of a loaded model becomes a padded copy, made from an fp32 one, while the others stay."""
    model = decoder()
    for _, parameter in sorted(model.named_parameters()):
        rows = parameter.shape[0]
        padding = [0, 0] * (parameter.dim() - 1) + [0, 1 + rows // 64]
        parameter.data = F.pad(parameter.data.float(), padding).to(torch.bfloat16)


PROGRAMS = {
    "train-decoder": train_decoder,
    "train-encoder": train_encoder,
    "generate": generate,
    "replace-weights": replace_weights,
}


# ---- recording


def to_trace(entries):
    """What the program asked for. Frees of what was allocated before the recording began are left out."""
    trace, blocks = Trace(), {}
    for entry in entries:
        if entry["action"] == "alloc":
            blocks[entry["addr"]] = trace.alloc(entry["size"])
        elif entry["action"] == "free_requested" and entry["addr"] in blocks:
            trace.free(blocks.pop(entry["addr"]))
    return trace


def record(program, name):
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.manual_seed(1)
    torch.cuda.memory._record_memory_history("all", context=None, max_entries=EVENTS_MOST)
    program(random.Random(name))
    torch.cuda.synchronize()
    gc.collect()
    entries = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
    torch.cuda.memory._record_memory_history(None)
    if len(entries) >= EVENTS_MOST:
        sys.exit("bench: %s has more than %d events" % (name, EVENTS_MOST))
    return to_trace(entries)


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    torch.cuda.init()
    for name, program in PROGRAMS.items():
        write(arguments[0], "recorded-" + name, record(program, name))


if __name__ == "__main__":
    main(sys.argv[1:])
