"""Jobs, named for what people want. The assets of a job share one kind of partition, so scraping is a job a site.

Schedules and sensors launch these jobs too, so that each kind of work has a row of its own in the timeline.
"""

from typing import Any

import dagster as dg

from persona_dagster.records import FORUMS

RESCRAPE = {source: f"rescrape_{source}" for source in FORUMS}
REBUILD = "rebuild_corpus"
Jobs = list[Any]  # the type of an unresolved job is private to Dagster

# By job: what it is for, and its assets. An asset that stands in two is launched by the first.
JOBS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{
        f"clean_{source}": (f"Parse and clean what the archive holds of {source}, a board.", (f"{source}_posts",))
        for source in FORUMS
    },
    **{
        name: (f"Ask {source} for what is new on a board, and clean it.", (f"{source}_raw", f"{source}_posts"))
        for source, name in RESCRAPE.items()
    },
    REBUILD: (
        "Read notes, chats and Capybara again, then corpus, dialogues and split. Asks no forum for anything.",
        (
            *("notes_raw", "notes", "capybara_raw", "capybara_dialogues", "chat_raw", "chat_posts"),
            *("posts", "reply_graph", "row_ledger"),
            *("sources_config", "personas_config", "voice_labels", "dialogues", "split"),
        ),
    ),
    "import_files": ("Take in files of this machine: launch it with their paths.", ("imported_files",)),
    "remix": ("The mix of one recipe, from the dialogues as they are.", ("mix",)),
    "retrain": (
        "Mix and adapter of one recipe. Returns at once where neither data nor recipe changed.",
        ("recipe_config", "mix", "lora_adapter"),
    ),
    "evaluate": (
        "Generate with base and adapter, and write the report.",
        ("evaluation_config", "generations", "eval_report"),
    ),
    "compare": ("All recipes side by side, from their newest reports.", ("iteration_report",)),
    "release": (
        "Release one recipe's adapter to the Hugging Face Hub; a dry run unless told otherwise.",
        ("hub_release",),
    ),
}


def build_jobs() -> Jobs:
    return [
        dg.define_asset_job(name, selection=dg.AssetSelection.assets(*assets), description=purpose)
        for name, (purpose, assets) in JOBS.items()
    ]


def job_of(asset: str) -> str:
    """The job that launches an asset by itself."""
    return next(name for name, (_, assets) in JOBS.items() if asset in assets)
