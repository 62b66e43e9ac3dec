"""How many of the report's untagged prompts are routed right, by voice.

The classifier learns from what lies under $PERSONA_HOME, and never from these prompts. Its settings were chosen by
cross-validation over the forums' own questions, not by this score.
"""

from __future__ import annotations

import sys

import yaml

from persona_dagster.chat.adapters import choose, find_adapters
from persona_dagster.chat.service import learn_routing
from persona_dagster.config.loading import PACKAGED
from persona_dagster.config.personas import load_personas
from persona_dagster.models.persona_classifier import Router
from persona_dagster.settings import Settings

settings = Settings()
personas = load_personas(settings.config_dir)
router = Router(personas, learn_routing(settings, personas, choose(find_adapters(settings), None)))
probes = yaml.safe_load((PACKAGED.parent / "evaluation" / "probes" / "routing.yaml").read_text(encoding="utf-8"))
rows = router.classifier.rows if router.classifier else 0
print(f"{sum(map(len, probes.values()))} prompts; the classifier learnt from {rows} examples")
right = {name: sum(router.route(text).persona == name for text in texts) for name, texts in probes.items()}
shares = ", ".join(f"{name} {right[name]}/{len(probes[name])}" for name in probes)
print(f"  {sum(right.values())}/{sum(map(len, probes.values()))}: {shares}")
if "--wrong" in sys.argv:
    for name, texts in probes.items():
        for text in texts:
            if (route := router.route(text)).persona != name:
                print(f"  {text}: {name}, routed to {route.persona} ({route.sure:.0%}, {', '.join(route.why)})")
