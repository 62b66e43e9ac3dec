-- Rows that may be copies, best first: trainable before flagged, older before newer, then by doc_id.
-- `place` 1 within a node (a distinct normalised text) is the row that stands for it.
WITH preferred AS (
    SELECT row, node, one, two, source || ':' || board || ':' || post_id AS doc_id,
        row_number() OVER (ORDER BY blocked, created_at NULLS LAST, doc_id, row) AS preference
    FROM compared
)
SELECT *, row_number() OVER (PARTITION BY node ORDER BY preference) AS place
FROM preferred
