"""The way to the sites that assets are given."""

from __future__ import annotations

from pathlib import Path

from persona_dagster.archive.archive import Archive
from persona_dagster.config.sources import load_sources
from persona_dagster.crawl.crawl_board import crawl_board
from persona_dagster.crawl.lease import lease_folder
from persona_dagster.defs.resources import ProjectResource
from persona_dagster.settings import Settings


def test_what_a_replica_asked_to_wait_goes_with_it(tmp_path: Path) -> None:
    """Kept by port for the whole machine, another replica on that port would have to wait it out."""
    settings = Settings(home=tmp_path / "home", profile="tiny", hardware="cpu")
    machine = set(lease_folder().glob("*"))
    with ProjectResource.open(settings).transport() as transport:
        archive, sources = Archive(tmp_path / "raw"), load_sources(settings.config_dir, "tiny")
        assert crawl_board("ptt", "Boy-Girl", sources, archive, transport=transport, log=lambda _: None).complete
        assert transport.leases is not None
        assert list(transport.leases.glob("*.next"))
    assert not transport.leases.exists()
    port = transport.rewrites["https://www.ptt.cc"].rpartition(":")[2]
    assert not [path for path in set(lease_folder().glob("*")) - machine if port in path.name]


def test_the_sites_themselves_are_held_for_the_whole_machine(tmp_path: Path) -> None:
    with ProjectResource.open(Settings(home=tmp_path, profile="live")).transport() as transport:
        assert transport.leases is None
