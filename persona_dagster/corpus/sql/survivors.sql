-- Of every node (a distinct normalised text) the row that stands for it: trainable before flagged, older before newer,
-- then by doc_id. `preference` puts those in order that are like the row of another node.
WITH kept AS (
    SELECT node, arg_min(row, (blocked, created_at IS NULL, created_at, doc_id, row)) AS row
    FROM compared
    GROUP BY node
),
ranked AS (
    SELECT row, row_number() OVER (ORDER BY blocked, created_at NULLS LAST, doc_id, row) AS preference
    FROM compared
    SEMI JOIN kept USING (row)
    WHERE paired
)
SELECT node, row, preference
FROM kept
LEFT JOIN ranked USING (row)
