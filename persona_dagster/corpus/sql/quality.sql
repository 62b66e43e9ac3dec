-- Which rows nobody should train on, and why: what `features` say of each by itself.
SELECT list_filter([
    CASE WHEN chars = 0 THEN 'empty' END,
    -- A post of four letters says nothing alone; a comment may (推, 笑死 are answers to something).
    CASE WHEN chars > 0 AND words < (CASE WHEN comment THEN 1 ELSE $post_words END) THEN 'too_short' END,
    CASE WHEN chars >= $symbol_chars AND words < $letter_share * chars THEN 'symbols' END,
    -- How often a text says itself, cheaply: its characters over the distinct ones.
    CASE WHEN words >= $repeated_words AND alphabet * $repeats <= least(words, $alphabet_of) THEN 'repetition' END,
    CASE WHEN NOT comment AND (form OR form_words >= $form_words) THEN 'template' END,
    CASE WHEN lang IN ('ja', 'ko', 'other') OR (lang = 'latin' AND latin_words >= $latin_words) THEN 'foreign' END,
    CASE WHEN bot THEN 'bot' END,
    CASE WHEN NOT comment AND advert_words >= $advert_words THEN 'advert' END
], lambda flag: flag IS NOT NULL) AS found
FROM features
ORDER BY row
