-- Boards in the spelling of config/sources/ where only case and width differ; one that it does not name keeps its own.
SELECT spelt.board, coalesce(known.name, spelt.plain) AS name, known.name IS NULL AS unlisted, rows
FROM spelt
LEFT JOIN known ON known.key = spelt.key
ORDER BY rows DESC, name
