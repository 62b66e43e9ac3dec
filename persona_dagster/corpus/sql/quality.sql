-- Which rows nobody should train on, and why: what `features` say of each, and of those around it (an author who says
-- one thing over and over, a text that many paste). `squeezed` is null where a row is too short to be told from others.
WITH repeated AS (
    SELECT author_key, squeezed
    FROM features
    WHERE author_key IS NOT NULL AND squeezed IS NOT NULL
    GROUP BY ALL
    HAVING count(*) > $flood_rows
),
pasted AS (
    SELECT squeezed
    FROM features
    WHERE words >= $pasted_words AND squeezed IS NOT NULL
    GROUP BY squeezed
    HAVING count(DISTINCT author_key) >= $pasted_authors OR count(*) >= $pasted_rows
)
SELECT list_filter([
    CASE WHEN chars = 0 THEN 'empty' END,
    -- A post of four letters says nothing alone; a comment may (推, 笑死 are answers to something).
    CASE WHEN chars > 0 AND words < (CASE WHEN comment THEN 1 ELSE $post_words END) THEN 'too_short' END,
    CASE WHEN chars >= $symbol_chars AND words < $letter_share * chars THEN 'symbols' END,
    -- How often a text says itself, cheaply: its characters over the distinct ones.
    CASE WHEN words >= $repeated_words AND alphabet * $repeats <= least(words, $alphabet_of) THEN 'repetition' END,
    CASE WHEN NOT comment AND (form OR form_words >= $form_words) THEN 'template' END,
    CASE WHEN repeated.squeezed IS NOT NULL THEN 'flood' END,
    CASE WHEN pasted.squeezed IS NOT NULL THEN 'copypasta' END,
    CASE WHEN lang IN ('ja', 'ko', 'other') OR (lang = 'latin' AND latin_words >= $latin_words) THEN 'foreign' END,
    CASE WHEN bot THEN 'bot' END,
    CASE WHEN NOT comment AND advert_words >= $advert_words THEN 'advert' END
], lambda flag: flag IS NOT NULL) AS found
FROM features
LEFT JOIN repeated USING (author_key, squeezed)
LEFT JOIN pasted ON pasted.squeezed = features.squeezed
ORDER BY row
