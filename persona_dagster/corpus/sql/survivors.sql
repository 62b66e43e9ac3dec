-- Rows whose text occurs twice or has a near twin, best first: trainable before flagged, older before newer.
-- `place` 1 within a node (a distinct normalised text) is the row that stands for it.
WITH shared AS (
    SELECT node FROM compared GROUP BY node HAVING count(*) > 1
    UNION
    SELECT unnest([a, b]) FROM pairs
),
named AS (
    SELECT compared.*, source || ':' || board || ':' || post_id AS doc_id
    FROM compared SEMI JOIN shared USING (node)
)
SELECT
    row, node, doc_id, one, two,
    row_number() OVER (ORDER BY blocked, created_at NULLS LAST, doc_id, row) AS preference,
    row_number() OVER (PARTITION BY node ORDER BY blocked, created_at NULLS LAST, doc_id, row) AS place
FROM named
