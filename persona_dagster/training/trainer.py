"""TRL's trainer, set up for one job: our own rows, masks and order; its loop, optimizer and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona_dagster.config.recipes import Recipe
from persona_dagster.models.chat_format import IGNORED
from persona_dagster.models.hardware import cards, precision
from persona_dagster.training.job_spec import JobError
from persona_dagster.training.rows import EncodedRow, epoch_order, pack

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTTrainer


class EpochOrder:
    """A sampler whose order is a function of seed and epoch alone, so that a resumed run goes on in it."""

    def __init__(self, pair_ids: list[str], window: int, seed: int) -> None:
        self.pair_ids = pair_ids
        self.window, self.seed, self.epoch = window, seed, 0

    def __len__(self) -> int:
        return len(self.pair_ids)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.pair_ids, self.window, self.seed, self.epoch))


def _dataset(rows: list[EncodedRow], packs: list[list[int]] | None) -> Dataset:
    """A line a row, or a line a pack, with where its rows end: TRL's collator begins their positions anew."""
    from datasets import Dataset

    if packs is None:
        return Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in rows])
    together = [[rows[index] for index in one] for one in packs]
    return Dataset.from_list(
        [
            {
                "input_ids": [token for row in one for token in row.input_ids],
                "labels": [label for row in one for label in row.labels],
                "seq_lengths": [len(row.input_ids) for row in one],
            }
            for one in together
        ]
    )


def compute_dtype(recipe: Recipe) -> str:
    """What the base computes in on the card here: as the recipe asks, but float16 where the card lacks bfloat16."""
    asked = recipe.quantisation.compute_dtype if recipe.quantisation.scheme == "nf4" else recipe.base.dtype
    return precision(asked, next(iter(cards()), None))


def check_quantised(recipe: Recipe, model: Any) -> None:
    """The linear maps of a base that was asked for in nf4 are 4-bit, by class and by bytes.

    A loader without bitsandbytes gives 16-bit weights and a line in its log: four times the memory that was planned.

    Raises:
        JobError: they are not.
    """
    if recipe.quantisation.scheme != "nf4":
        return
    weights = [
        module.get_base_layer().weight
        for module in model.modules()
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
    ]
    wrong = sum(type(one).__name__ != "Params4bit" or one.element_size() != 1 for one in weights)
    if wrong or not weights:
        raise JobError(
            f"recipe {recipe.name}: quantisation nf4 was asked for, and {wrong} of {len(weights)} adapted maps of "
            f"{recipe.base.model} were loaded in another form: pip install bitsandbytes (the extra gpu)"
        )


def _config(recipe: Recipe, folder: Path, extra: dict[str, Any]) -> Any:
    import torch
    from trl import SFTConfig

    training = recipe.training
    cuda = torch.cuda.is_available()
    half = compute_dtype(recipe)
    return SFTConfig(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=training.max_steps or -1,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup_steps,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim=training.optimizer,
        seed=training.seed,
        # rows.py has cut them already; TRL wants that said where nothing is padded.
        max_length=None if training.padding_free or training.packing else training.max_length,
        padding_free=training.padding_free or training.packing,
        gradient_checkpointing=training.gradient_checkpointing,
        # TRL's default is bf16 autocast: right on a card, 2x slower on a CPU whose weights are bf16 already.
        bf16=cuda and half == "bfloat16",
        fp16=cuda and half == "float16",
        use_cpu=not cuda,
        ddp_find_unused_parameters=False,  # every LoRA weight takes part in every step
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="no",  # callbacks.py evaluates: a mean over tokens, not over batches
        save_strategy="steps",
        save_steps=training.save_every,
        save_total_limit=2,
        logging_steps=training.log_every,
        logging_nan_inf_filter=False,  # the watch wants to see them
        report_to=list(training.report_to) or "none",
        run_name=recipe.name,
        project="persona_dagster",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        **extra,
    )


def answer_loss(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
    """The loss of a PEFT model over a batch, in nats a token: logits of the answers' tokens alone, made once.

    TRL's chunked loss computes them twice, for whole chunks, with their entropy: on a CPU a third of a step.
    """
    import torch

    causal = model.get_base_model()
    given = {name: value for name, value in inputs.items() if name in ("input_ids", "attention_mask", "position_ids")}
    hidden = getattr(causal, causal.base_model_prefix)(**given, use_cache=False).last_hidden_state[:, :-1]
    targets = inputs["labels"][:, 1:]
    asked = targets != IGNORED
    logits = causal.get_output_embeddings()(hidden[asked]).float()
    loss = torch.nn.functional.cross_entropy(logits, targets[asked], reduction="sum")
    return loss / (asked.sum() if num_items_in_batch is None else num_items_in_batch)


def make_trainer(
    recipe: Recipe,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[EncodedRow],
    *,
    folder: Path,
    callbacks: list[TrainerCallback],
    extra: dict[str, Any],
) -> SFTTrainer:
    """An SFTTrainer over `rows` (already tokenised and masked), with checkpoints under `folder`."""
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTTrainer

    config = _config(recipe, folder, extra)
    window = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    packs = pack([len(row.input_ids) for row in rows], recipe.training.max_length) if recipe.training.packing else None
    # Copies of a pair may meet in a pack; whole packs have no copies.
    order = EpochOrder(
        [row.pair_id for row in rows] if packs is None else [str(one) for one in packs], window, config.seed
    )

    class OrderedTrainer(SFTTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return order

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            # A wrapped model (torchrun) must be called as a whole, and a card wants the chunks for its memory.
            if return_outputs or model.device.type != "cpu" or not hasattr(model, "get_base_model"):
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            mask = inputs.get("attention_mask", inputs["input_ids"])
            self._total_train_tokens += int((mask != 0).sum())  # what TRL counts, and logs
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
            return answer_loss(model, inputs, num_items_in_batch)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """The run card is ours, and a checkpoint needs none."""

    class TellEpoch(TrainerCallback):
        """accelerate does not carry `set_epoch` through its wrappers to a sampler of ours."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            order.epoch = int(state.epoch)

    trainer = OrderedTrainer(
        model=model,
        args=config,
        train_dataset=_dataset(rows, packs),
        processing_class=tokenizer,
        callbacks=[TellEpoch(), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    # TRL makes the adapter of a quantised base bfloat16, which the gradient scaler of float16 refuses, and in which
    # small updates of AdamW are lost. As PEFT and Unsloth have it: weights that learn are float32.
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    return trainer
