"""Random models of a base's shape, with a tokenizer made here: for tests of the plumbing and of a base's template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from persona_dagster.config.base_models import BaseEntry, Shape
from persona_dagster.config.loading import PACKAGED

# What looks like a control token in a template: `<|im_end|>`, `<end_of_turn>`, `<eos>`, `[INST]`.
_CONTROL = re.compile(r"<\|[^<>|\s]{1,40}\|>|<[a-z_/]{2,30}>|\[/?[A-Z]{3,12}\]")
_BEGIN, _PAD = "<|endoftext|>", "<|pad|>"
_PIECES = 512


def tiny(shape: Shape) -> Shape:
    """`shape` scaled down, its ratios kept: two layers, heads of 16, as many queries a key as before."""
    group = max(1, min(shape.heads // shape.kv_heads, 4))
    heads = 2 * group
    return Shape(
        layers=2,
        hidden=64,
        intermediate=round(64 * shape.intermediate / shape.hidden / 8) * 8,
        heads=heads,
        kv_heads=heads // group,
        head_dim=16,
        vocabulary=_PIECES,
        context=1024,
        tied=shape.tied,
    )


def make_random(entry: BaseEntry, folder: Path) -> None:
    """A random model of the entry's architecture and shape, and its tokenizer, saved in `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    assert entry.shape is not None
    shape = entry.shape
    tokenizer = make_tokenizer(entry)
    config = AutoConfig.for_model(
        entry.architecture,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim or shape.hidden // shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=shape.tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_tokenizer(entry: BaseEntry, template: str | None = None) -> Any:
    """A byte-level BPE of 512 pieces, trained on the personas' texts, that has the control tokens of the template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    control = dict.fromkeys(
        [_BEGIN, *entry.end_of_turn, *_CONTROL.findall(template or entry.chat_template or ""), _PAD]
    )
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    packaged = sorted((PACKAGED / "personas").glob("*.yaml"))
    text = "".join(path.read_text(encoding="utf-8") for path in packaged)
    trainer = trainers.BpeTrainer(
        vocab_size=_PIECES,
        special_tokens=list(control),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(text.splitlines(), trainer)
    end = entry.end_of_turn[0] if entry.end_of_turn else _BEGIN
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=_BEGIN,
        eos_token=end,
        pad_token=_PAD,
        additional_special_tokens=list(control),
    )
