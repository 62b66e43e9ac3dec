-- Every removed row with the row that is kept in its place, how alike they are, and why.
SELECT
    removed.row,
    kept.doc_id AS kept,
    removed.doc_id AS removed,
    coalesce(stars.jaccard, 1.0) AS jaccard,
    CASE
        WHEN stars.node IS NOT NULL THEN 'near'
        WHEN removed.one = kept.one AND removed.two = kept.two THEN 'exact'
        ELSE 'same_words'
    END AS cause
FROM survivors AS removed
LEFT JOIN stars ON stars.node = removed.node
JOIN survivors AS kept ON kept.node = coalesce(stars.kept, removed.node) AND kept.place = 1
WHERE removed.row <> kept.row
ORDER BY removed.row
