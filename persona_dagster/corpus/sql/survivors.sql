-- Rows that may be copies, best first: trainable before flagged, older before newer, then by doc_id.
-- `place` 1 within a node (a distinct normalised text) is the row that stands for it. Short comments are nobody's copy.
WITH named AS (
    SELECT *, source || ':' || board || ':' || post_id AS doc_id
    FROM compared
    WHERE letters >= $shortest OR (letters > 0 AND NOT comment)
),
preferred AS (
    SELECT row, node, doc_id, one, two,
        row_number() OVER (ORDER BY blocked, created_at NULLS LAST, doc_id, row) AS preference
    FROM named
)
SELECT *, row_number() OVER (PARTITION BY node ORDER BY preference) AS place
FROM preferred
