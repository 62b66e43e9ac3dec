"""Which cards a process may use, and what they compute in; by description, so that no card is needed."""

from __future__ import annotations

import pytest

from persona_dagster.config.loading import ConfigError
from persona_dagster.models.hardware import Card, cards, hardware_of, overlay_of, precision, rank_device, visible
from persona_dagster.settings import Settings

HERE = [
    Card(0, "Tesla T4", 14.6, 14.0, "GPU-aa11", (7, 5)),
    Card(1, "NVIDIA GeForce RTX 3060", 12.0, 11.0, "GPU-bb22", (8, 6)),
    Card(2, "NVIDIA A100", 79.2, 70.0, "GPU-cc33", (8, 0)),
]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("GPU-bb", [1]),
        (" 2 , 1 ", [2, 1]),
        ("0,7,1", [0]),  # as CUDA: what follows an unknown one is not seen
        ("1,1", [1]),
    ],
)
def test_only_what_cuda_shows_is_counted(chosen: str | None, expected: list[int]) -> None:
    assert [card.index for card in visible(HERE, chosen)] == expected


def test_a_machine_without_a_driver_has_no_card() -> None:
    assert cards({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_a_t4_computes_in_float16_and_what_is_newer_as_asked() -> None:
    assert precision("bfloat16", HERE[0]) == "float16"
    assert precision("bfloat16", HERE[1]) == precision("bfloat16", None) == "bfloat16"
    assert precision("float32", HERE[0]) == "float32"


def test_overlays_by_size() -> None:
    sizes = {7.6: "gpu_8gb", 11.6: "gpu_12gb", 14.6: "gpu_16gb", 23.6: "gpu_24gb", 79.2: "gpu_80gb", 5.8: "cpu"}
    assert {size: overlay_of(size) for size in sizes} == sizes


def test_a_rank_has_the_card_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert rank_device() == 0
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert rank_device() == 3


@pytest.mark.parametrize("engine", ["ray", "slurm", "k8s"])
def test_the_cards_of_a_cluster_are_named_not_looked_for_on_its_login_node(engine: str) -> None:
    """A login node has no card: looked for there, a recipe for one became that of the CPU."""
    with pytest.raises(ConfigError, match=r"other machines .* PERSONA_HARDWARE=cpu\|gpu_8gb"):
        hardware_of(Settings(engine=engine, profile="live"))
    assert hardware_of(Settings(engine=engine, profile="live", hardware="gpu_24gb")) == "gpu_24gb"
    assert hardware_of(Settings(engine=engine, profile="sample")) == "cpu"
