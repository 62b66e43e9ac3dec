"""How many bytes the real modules of a model hold at the peak of a training step: counted, not computed.

transformers' own model, bitsandbytes' own 4-bit autograd function, PEFT's LoRA and TRL's chunked loss run forward and
backward over torch's fake tensors, which have shapes and no values, while every storage is counted from its birth to
its death. torch's MemTracker gives the same total (685.6 MB against 683.2 MB on a Llama of four layers) and takes five
times as long.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bitsandbytes as bnb
import torch
from bitsandbytes.functional import QuantState
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM
from trl.trainer.sft_trainer import _chunk

from persona_dagster.config.recipes import Recipe


class Account(TorchDispatchMode):
    """Bytes of all living storages after each operation, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: Any = weakref.WeakKeyDictionary()

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self.known:
            return
        size = storage.nbytes()
        self.known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, torch.Tensor):
                self.count(value)
        return out


class Linear4bit(bnb.nn.Linear4bit):
    """bitsandbytes' layer and autograd function, over weights with bytes and without values."""

    def __init__(self, given: nn.Linear, compute: torch.dtype) -> None:
        nn.Linear.__init__(self, 1, 1, bias=False)
        self.in_features, self.out_features = given.in_features, given.out_features
        size = given.weight.numel()
        blocks = -(-size // 64)
        inner = QuantState(
            absmax=torch.empty(-(-blocks // 256)), blocksize=256, code=torch.empty(256), dtype=torch.float32
        )
        self.state = QuantState(
            absmax=torch.empty(blocks, dtype=torch.uint8),
            shape=torch.Size((self.out_features, self.in_features)),
            dtype=compute,
            blocksize=64,
            quant_type="nf4",
            code=torch.empty(16),
            offset=torch.empty(()),
            state2=inner,
        )
        weight: Any = nn.Parameter(torch.empty(size // 2, 1, dtype=torch.uint8), requires_grad=False)
        weight.compress_statistics, weight.quant_type, weight.quant_storage = True, "nf4", torch.uint8
        weight.bnb_quantized, weight.quant_state = True, self.state
        self.weight = weight
        self.compute_dtype, self.quant_state = compute, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = x.to(self.compute_dtype)
        return bnb.matmul_4bit(given, self.weight.t(), quant_state=self.state).to(x.dtype)


def measure(config: Any, recipe: Recipe) -> int:
    """Bytes at the peak of one micro-batch of full rows, gradients of earlier ones there; no optimizer, no context."""
    training, lora = recipe.training, recipe.lora
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        if recipe.quantisation.scheme == "nf4":
            for name, module in list(model.named_modules()):
                if type(module) is nn.Linear and "lm_head" not in name:
                    owner, _, own = name.rpartition(".")
                    setattr(model.get_submodule(owner), own, Linear4bit(module, torch.bfloat16))
        adapter = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=list(lora.targets), task_type="CAUSAL_LM")
        model = get_peft_model(model, adapter)
    with FakeTensorMode(allow_non_fake_inputs=True), _as_on_a_card():
        _make_fake(model)
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        model.train()
        account = Account()
        for tensor in (*model.parameters(), *model.buffers()):
            account.count(tensor)
        for module in model.modules():
            if isinstance(module, Linear4bit):
                for tensor in (module.state.absmax, module.state.state2.absmax):
                    account.count(tensor)
        ids = torch.zeros(training.batch_size, training.max_length, dtype=torch.long)
        with account:
            for weight in model.parameters():
                if weight.requires_grad:
                    weight.grad = torch.zeros_like(weight)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = (
                    _chunked(model, ids)
                    if training.chunked_loss
                    else model(input_ids=ids, labels=ids, use_cache=False).loss
                )
            loss.backward()  # TRL has let go of the outputs by now
        return account.peak


def _chunked(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """TRL's own chunk; its loop over them asks a tensor for its value, which a fake one has not."""
    causal = model.get_base_model()
    hidden = (
        causal.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].reshape(-1, causal.config.hidden_size)
    )
    targets = torch.zeros(hidden.shape[0], dtype=torch.long)
    loss = torch.zeros(())
    for start in range(0, hidden.shape[0], 256):
        rows = slice(start, start + 256)
        of_chunk, _, _ = checkpoint(
            _chunk, hidden[rows], causal.lm_head.weight, None, targets[rows], 1.0, None, use_reentrant=False
        )
        loss = loss + of_chunk
    return loss


@contextmanager
def _as_on_a_card() -> Iterator[None]:
    """PEFT asks CUDA's autocast, not the CPU's, whether it must convert what it is given."""
    asked = torch.is_autocast_enabled
    torch.is_autocast_enabled = lambda *kind: asked(*kind) if kind else True
    try:
        yield
    finally:
        torch.is_autocast_enabled = asked


def _make_fake(model: nn.Module) -> None:
    """Fake tensors in the place of those on `meta`; tied ones stay tied, weights that learn are float32."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, given in list(module._parameters.items()):
            if given is None:
                continue
            if id(given) not in made:
                dtype = torch.float32 if given.requires_grad else given.dtype
                new = nn.Parameter(torch.empty(given.shape, dtype=dtype), requires_grad=given.requires_grad)
                new.__dict__.update(given.__dict__)
                made[id(given)] = new
            module._parameters[name] = made[id(given)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        if isinstance(module, Linear4bit):
            for state in (module.state, module.state.state2):
                state.absmax = torch.empty(state.absmax.shape, dtype=state.absmax.dtype)
                state.code = torch.empty(state.code.shape)
            module.state.offset = torch.empty(())
