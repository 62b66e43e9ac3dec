-- Rows that stand on their board too often: an author says one thing over and over, many paste a text. `told` holds the
-- rows that can be told from others; `squeezed` is a hash of the letters.
WITH flood AS (
    SELECT author_key, squeezed
    FROM told
    WHERE author_key IS NOT NULL
    GROUP BY ALL
    HAVING count(*) > $flood_rows
),
pasted AS (
    SELECT squeezed
    FROM told
    WHERE words >= $pasted_words
    GROUP BY squeezed
    HAVING count(DISTINCT author_key) >= $pasted_authors OR count(*) >= $pasted_rows
)
SELECT row, list_filter([
    CASE WHEN flood.squeezed IS NOT NULL THEN 'flood' END,
    CASE WHEN pasted.squeezed IS NOT NULL THEN 'copypasta' END
], lambda flag: flag IS NOT NULL) AS found
FROM told
LEFT JOIN flood USING (author_key, squeezed)
LEFT JOIN pasted ON pasted.squeezed = told.squeezed
WHERE flood.squeezed IS NOT NULL OR pasted.squeezed IS NOT NULL
ORDER BY row
