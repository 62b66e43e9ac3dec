"""Every packaged base conforms, as a tiny random model of its shape; and the suite finds what is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from persona_dagster.config.base_models import Base, BaseEntry, packaged_bases
from persona_dagster.models.base_check import check_base, tiny_base

WITH_TEMPLATE = [name for name, entry in packaged_bases().items() if entry.chat_template]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def failures(base: Base, models_dir: Path) -> dict[str, str]:
    return {finding.name: finding.why for finding in check_base(base, models_dir) if not finding.holds}


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_every_packaged_base_conforms(name: str, models_dir: Path) -> None:
    assert failures(tiny_base(packaged_bases()[name]), models_dir) == {}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"}, "learned"),
        (
            {"chat_template": "{% for m in messages[-2:] %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"},
            "rendered",
        ),
    ],
)
def test_a_broken_template_is_found(change: dict[str, str], named: str, models_dir: Path) -> None:
    entry: BaseEntry = packaged_bases()["tiny-llama"].model_copy(update={"name": f"broken-{named}", **change})
    assert any(named in name for name in failures(tiny_base(entry), models_dir))


def test_a_base_without_a_system_role_hears_the_system_message_in_the_question(models_dir: Path) -> None:
    from persona_dagster.models.base_model import load_tokenizer

    entry = packaged_bases()["gemma3-270m-it"]
    tokenizer = load_tokenizer(tiny_base(entry), models_dir)
    chat = [{"role": "system", "content": "[助教]"}, {"role": "user", "content": "問"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert "<start_of_turn>user\n[助教]\n\n問<end_of_turn>\n<start_of_turn>model\n" in str(text)


def test_the_mission_s_own_adapter_is_asked_as_it_was_trained(models_dir: Path) -> None:
    from persona_dagster.config.base_models import base_of_adapter
    from persona_dagster.models.base_model import load_tokenizer
    from persona_dagster.models.chat_format import prompt_text

    found = base_of_adapter("Li-Kai-Huang/Llama-3-8B-Multi-Persona-Ray", "unsloth/x", packaged_bases())
    assert found.model == "llama3-8b-multi-persona-ray"
    tokenizer = load_tokenizer(tiny_base(found.entry), models_dir)
    chat = [{"role": "system", "content": "[NLP 技術助教] 先定義。"}, {"role": "user", "content": "什麼是分詞？"}]
    asked = "<|endoftext|>### Instruction:\n[人格:NLP助教] 什麼是分詞？\n\n### Response:\n"
    assert prompt_text(chat, tokenizer, 500) == asked
    assert base_of_adapter("some/other", "tiny:llama", packaged_bases()).entry.name == "tiny-llama"


def test_an_adapter_s_own_tokenizer_wins_with_its_template(models_dir: Path, tmp_path: Path) -> None:
    from persona_dagster.models.base_model import adapter_tokenizer, load_tokenizer

    base = tiny_base(packaged_bases()["llama3-8b"])
    assert adapter_tokenizer(tmp_path, base, models_dir).chat_template == base.entry.chat_template
    tokenizer = load_tokenizer(base, models_dir)
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path)
    assert adapter_tokenizer(tmp_path, base, models_dir).chat_template == "{{ messages[0].content }}"
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "without")
    assert adapter_tokenizer(tmp_path / "without", base, models_dir).chat_template == base.entry.chat_template


@pytest.mark.soak
@pytest.mark.parametrize("name", ["gemma3-270m", "smollm2-135m-instruct"])
def test_the_packaged_weights_conform(name: str, models_dir: Path) -> None:
    assert failures(Base(model=name, dtype="float32"), models_dir) == {}
