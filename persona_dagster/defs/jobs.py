"""Jobs, named for what people want. A job's assets share one kind of partition, so re-scraping is a job a site."""

from typing import Any

import dagster as dg

from persona_dagster.records import FORUMS

Selection = dg.AssetSelection
RESCRAPE = {source: f"rescrape_{source}" for source in FORUMS}
REBUILD = "rebuild_corpus"
Jobs = list[Any]  # the type of an unresolved job is private to Dagster


def build_jobs():  # the type of an unresolved job is private to Dagster
    return [
        *(
            dg.define_asset_job(
                name,
                selection=Selection.assets(f"{source}_raw", f"{source}_posts"),
                description=f"Ask {source} for what is new on a board, and clean it.",
            )
            for source, name in RESCRAPE.items()
        ),
        dg.define_asset_job(
            REBUILD,
            selection=Selection.assets("notes_raw", "notes", "capybara_raw", "capybara_dialogues", "posts")
            | Selection.assets("personas_config", "dialogues", "split"),
            description="Read notes and Capybara again, then corpus, dialogues and split. Asks no forum for anything.",
        ),
        dg.define_asset_job(
            "retrain",
            selection=Selection.assets("recipe_config", "mix", "lora_adapter"),
            description="Mix and adapter of one recipe. Returns at once where neither data nor recipe changed.",
        ),
        dg.define_asset_job(
            "evaluate",
            selection=Selection.assets("evaluation_config", "generations", "eval_report"),
            description="Generate with base and adapter, and write the report.",
        ),
        dg.define_asset_job(
            "release",
            selection=Selection.assets("hub_release"),
            description="Release one recipe's adapter to the Hugging Face Hub; a dry run unless told otherwise.",
        ),
    ]
