"""What Dagster loads: the component `PersonaProject` over `$PERSONA_HOME/config`.

Loading writes nothing, calls no network, resolves no secret, and imports neither torch nor a browser.
"""

import dagster as dg

from persona_dagster.defs.component import PersonaProject

defs = dg.build_defs_for_component(PersonaProject())
