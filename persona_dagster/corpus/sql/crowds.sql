-- What only its neighbours show of a row: an author who says one thing over and over, a text that many paste.
WITH repeated AS (
    SELECT author_key, squeezed
    FROM said
    WHERE words >= 5 AND author_key IS NOT NULL
    GROUP BY ALL
    HAVING count(*) > $flood
),
pasted AS (
    SELECT squeezed
    FROM said
    WHERE words >= 30
    GROUP BY squeezed
    HAVING count(DISTINCT author_key) >= $authors OR count(*) >= $rows
)
SELECT row, repeated.squeezed IS NOT NULL AS flood, pasted.squeezed IS NOT NULL AS copypasta
FROM said
LEFT JOIN repeated USING (author_key, squeezed)
LEFT JOIN pasted ON pasted.squeezed = said.squeezed
WHERE repeated.squeezed IS NOT NULL OR pasted.squeezed IS NOT NULL
ORDER BY row
