"""Dialogue assets: who answers whom in which voice, what the test set holds, and one mix a recipe."""

import dagster as dg
import polars as pl

from persona_dagster.artifacts import write_bytes
from persona_dagster.config.recipes import Recipe
from persona_dagster.conversation import graph
from persona_dagster.conversation.builders import BUILDERS_VERSION, Yield, build_dialogues
from persona_dagster.conversation.capybara import capybara_dialogues as read_capybara
from persona_dagster.conversation.graph import GRAPH_VERSION, imported_rows
from persona_dagster.conversation.labels import LABELS_VERSION, labelled, labels_version, read_labels
from persona_dagster.conversation.mix import MIX_VERSION, CountTokens, write_mix
from persona_dagster.conversation.mix_data_card import weights_markdown
from persona_dagster.conversation.mix_store import MixStore
from persona_dagster.conversation.safety import load_unsafe
from persona_dagster.conversation.split import SPLIT_VERSION, read_ledger, split_dialogues, write_ledger
from persona_dagster.conversation.voice_classifier import VOICES_VERSION, Voices
from persona_dagster.corpus.ledger import PAIRS
from persona_dagster.corpus.quality import usable
from persona_dagster.corpus.tables import write_parquet
from persona_dagster.defs.automation import only_if_data_changed
from persona_dagster.defs.corpus import Frame, versioned
from persona_dagster.defs.partitions import recipe_partitions
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.intake.import_to_archive import brought
from persona_dagster.models.base_model import check_chat_template
from persona_dagster.models.chat_format import count_tokens
from persona_dagster.models.embedding_cache import Vectors

DIALOGUE_MEANING = ("pair_id", "builder", "persona", "messages_raw", "messages", "thread_id", "answer_author", "score")
GRAPH_MEANING = (
    "doc_id",
    "parent_doc",
    "evidence",
    "certainty",
    "rank",
    "run_doc",
    "by_host",
    "origin",
    "parent_origin",
)
SPLIT_MEANING = ("pair_id", "component", "split")
LEDGER = "split_ledger.parquet"
RECIPE_VERSION = "recipe_version"  # in a mix's metadata: of the recipe that it was made by


def build_dialogue_assets(project: ProjectResource) -> list[dg.AssetsDefinition]:
    return [
        _reply_graph(project),
        _voice_labels(project),
        _dialogues(project),
        _capybara_dialogues(project),
        _split(project),
        _mix(project),
    ]


def _reply_graph(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="Who answers whom among the posts: an edge a row, with its evidence (a floor that is named, what "
        "the site says, the thread), how certain it is, and file and row of what was imported.",
        kinds={"duckdb", "polars"},
        owners=["team:ml"],
        code_version=GRAPH_VERSION,
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def reply_graph(posts: pl.LazyFrame) -> Frame:
        settings = project.settings
        edges = graph.reply_graph(posts, imported_rows(settings.intake_dir), settings.cleaned_dir)
        counts = graph.graph_yield(edges)
        return versioned(edges, GRAPH_MEANING, {"edges": dg.MetadataValue.md(Yield(counts).markdown())})

    return reply_graph


def _voice_labels(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="Which voice real answers have, as people read them (`persona review`, `persona labels import`): "
        "a row an answer, with who said so, when, and in which file. Ids of posts, no text.",
        kinds={"jsonl", "polars"},
        owners=["team:ml"],
        code_version=LABELS_VERSION,
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def voice_labels() -> dg.Output[pl.DataFrame]:
        folder = project.settings.labels_dir
        found = read_labels(folder)
        by = dict(found.group_by(pl.col("persona").fill_null("none")).len().sort("persona").iter_rows())
        return dg.Output(
            found,
            data_version=dg.DataVersion(labels_version(folder)),
            metadata={"labels": found.height, "by_persona": by, "unsafe": int(found["unsafe"].sum())},
        )

    return voice_labels


def _dialogues(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="Question and answer pairs, each with a persona, the score of its voice, and the posts it was "
        "made of. Built from usable rows; duplicates follow the row that is kept.",
        deps=["personas_config"],
        kinds={"duckdb", "polars"},
        owners=["team:ml"],
        code_version=f"{BUILDERS_VERSION}.{VOICES_VERSION}",
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def dialogues(
        posts: pl.DataFrame, notes: pl.DataFrame, reply_graph: pl.DataFrame, voice_labels: pl.DataFrame
    ) -> Frame:
        settings, personas = project.settings, project.personas()
        labels = labelled(voice_labels, posts, reply_graph)
        built = build_dialogues(
            pl.concat([posts, notes]),
            personas,
            Voices(personas, Vectors(settings.voice_encoder, settings.models_dir, settings.vectors_dir), labels),
            usable=usable(),
            edges=reply_graph,
            unsafe=load_unsafe(settings.config_dir, settings.accepted_dir),
        )
        write_parquet(built.left_out, settings.intake_dir / PAIRS)
        by_persona = dict(built.frame.group_by("persona").len().sort("persona").iter_rows())
        turns = built.frame.select("source", turns=pl.col("messages").list.len() // 2)
        several = turns.filter(pl.col("turns") > 1).group_by("source").len().sort("source")
        return versioned(
            built.frame,
            DIALOGUE_MEANING,
            {
                "dialogues_by_persona": by_persona,
                "of_several_turns_by_source": dict(several.iter_rows()),
                "left_out_as_unsafe": built.unsafe,
                "labels_learned_from": len(labels.answers) if labels else 0,
                "yield": dg.MetadataValue.md(built.report.markdown()),
            },
        )

    return dialogues


def _capybara_dialogues(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="Capybara's multi-turn dialogues. Its test rows stay test rows.",
        deps=["capybara_raw"],
        kinds={"duckdb", "polars"},
        owners=["team:ml"],
        code_version=BUILDERS_VERSION,
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def capybara_dialogues() -> Frame:
        archive = project.archive()
        captures = (capture for board in archive.boards("capybara") for capture in archive.latest("capybara", board))
        if project.settings.profile == "own":  # the sample's, of an earlier demo in this home, stay out
            mine = set(brought(project.settings))
            captures = (capture for capture in captures if capture.sha256 in mine)
        return versioned(read_capybara(captures), DIALOGUE_MEANING)

    return capybara_dialogues


def _split(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="Train or test, by connected component (thread or near-duplicate), before any recipe or weight. "
        "The ledger keeps every assignment: what was in test stays in test, and what bridges both is quarantined.",
        kinds={"duckdb", "polars"},
        owners=["team:ml"],
        code_version=SPLIT_VERSION,
        io_manager_key="tables",
        automation_condition=only_if_data_changed(),
    )
    def split(dialogues: pl.DataFrame, capybara_dialogues: pl.DataFrame) -> Frame:
        path = project.settings.tables_dir / LEDGER
        everything = pl.concat([dialogues, capybara_dialogues])
        result = split_dialogues(everything, read_ledger(path), project.split())
        write_ledger(result.ledger, path)
        return versioned(
            result.frame,
            SPLIT_MEANING,
            {
                "rows_by_split": dict(result.frame.group_by("split").len().sort("split").iter_rows()),
                "largest_jaccard_across": result.report.largest_jaccard,
                "largest_component_share": result.report.largest_component_share,
                "quarantined": result.report.quarantined,
                "ledger": dg.MetadataValue.path(str(path)),
            },
        )

    return split


def _mix(project: ProjectResource) -> dg.AssetsDefinition:
    @dg.asset(
        group_name="dialogue",
        description="What one recipe trains on and is tested on: chat JSONL, scarce voices oversampled, with the "
        "provenance of every row and a data card.",
        partitions_def=recipe_partitions(project.recipes),
        deps=["recipe_config", "personas_config"],
        kinds={"jsonl", "polars"},
        owners=["team:ml"],
        code_version=MIX_VERSION,
        automation_condition=only_if_data_changed(),
    )
    def mix(
        context: dg.AssetExecutionContext,
        dialogues: pl.DataFrame,
        capybara_dialogues: pl.DataFrame,
        split: pl.DataFrame,
    ) -> dg.MaterializeResult:
        recipe = project.recipe(context.partition_key)
        check_chat_template(recipe.base)  # before anything is written
        everything = pl.concat([dialogues, capybara_dialogues])
        folder = project.settings.mix_dir / recipe.name
        manifest = write_mix(everything, split, recipe, project.personas(), folder, count=_counter(project, recipe))
        if project.settings.mix_url:
            MixStore(project.settings.mix_url).publish(manifest.folder)
        page = project.settings.reports_dir / "mix" / f"{recipe.name}.html"  # beside what a browser may open
        for warning in manifest.warnings:
            context.log.warning("%s", warning)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(manifest.digest),
            metadata={
                "train_rows": manifest.train_rows,
                "test_rows": manifest.test_rows,
                "train_rows_by_persona": manifest.train_by_persona,
                "folder": dg.MetadataValue.path(str(manifest.folder)),
                "data_card": project.link(write_bytes(page, (manifest.folder / "data_card.html").read_bytes())),
                "weights": dg.MetadataValue.md(weights_markdown(manifest)),
                RECIPE_VERSION: stored.version() if (stored := project.resolved(recipe.name)) else "",
                "learned": manifest.learned,
                "shortfall": dg.MetadataValue.md("\n".join(f"- {line}" for line in manifest.shortfall) or "none"),
                "warnings": dg.MetadataValue.md("\n".join(f"- {line}" for line in manifest.warnings) or "none"),
            },
        )

    return mix


def _counter(project: ProjectResource, recipe: Recipe) -> CountTokens | None:
    """The base model's own count of tokens, for a recipe that weighs by them."""
    if recipe.mix.unit == "rows":
        return None
    from persona_dagster.models.base_model import load_tokenizer

    tokenizer = load_tokenizer(recipe.base, project.settings.models_dir)
    return lambda texts: count_tokens(texts, tokenizer)
