-- Every removed row with the row that is kept in its place, how alike they are, and why. Rows by number: names are
-- strings, and joining them cost more than all the rest.
SELECT
    removed.row,
    kept.row AS kept,
    coalesce(stars.jaccard, 1.0) AS jaccard,
    CASE
        WHEN stars.node IS NOT NULL THEN 'near'
        WHEN removed.one = kept.one AND removed.two = kept.two THEN 'exact'
        ELSE 'same_words'
    END AS cause
FROM compared AS removed
LEFT JOIN stars USING (node)
JOIN survivors AS kept ON kept.node = coalesce(stars.kept, removed.node)
WHERE removed.row <> kept.row
ORDER BY removed.row
