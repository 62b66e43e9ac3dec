-- Who answers whom. `rows`: a row a post, comment or reply, with doc_id, thread_doc (doc_id of the thread's first post),
-- parent_doc (what the site or the dump says it answers), topic and is_reply (PTT titles).
-- A row has one edge of rank 1, and one more for every further floor that it names.
WITH said AS (
    SELECT *,
        -- Without the residue that the raw level shows: own floor, the push's head, the time at the end.
        regexp_replace(
            regexp_replace(
                translate(coalesce(text_raw, ''), 'Ｂｂ０１２３４５６７８９', 'BB0123456789'),
                '^(?:B' || coalesce(floor, 0) || ' |[推噓→] \S+: ?)', ''
            ),
            '\s\d{1,2}(?:月\d{1,2}日|/\d{1,2})(?: \d{1,2}:\d{2})?$', ''
        ) AS words
    FROM rows
),
addressed AS (  -- a floor is spoken to at the start or the end of a line; in running text it is spoken about
    SELECT doc_id, thread_doc, floor,
        regexp_extract_all(words, $head, 1) || regexp_extract_all(words, $tail, 1) AS found,
        regexp_matches(words, '^[^\p{L}\p{N}\n]*樓上') AS above
    FROM said
    WHERE kind IN ('comment', 'reply') AND floor IS NOT NULL AND NOT regexp_matches(words, $vitamins)
),
places AS (
    SELECT doc_id, thread_doc, floor, unnest(found) AS marks, generate_subscripts(found, 1) AS place FROM addressed
),
listed AS (  -- the floors of a mark; a range names all of its floors
    SELECT doc_id, thread_doc, floor, place,
        CASE
            WHEN regexp_matches(marks, '^[Bb#]?\s?\d+\s?樓?\s?[-~～到至]\s?[Bb#]?\s?\d+\s?樓?$')
                AND ends[2] BETWEEN ends[1] AND ends[1] + $range THEN generate_series(ends[1], ends[2])
            ELSE ends
        END AS targets
    FROM (SELECT *, regexp_extract_all(marks, '\d+')::BIGINT[] AS ends FROM places)
),
named AS (
    SELECT doc_id, thread_doc, floor, place * 1000 + generate_subscripts(targets, 1) AS place, unnest(targets) AS target
    FROM listed
),
marks AS (
    SELECT doc_id, thread_doc, floor, target, min(place) AS place
    FROM named WHERE target < floor GROUP BY ALL
),
floors AS (  -- PTT and Dcard number a thread's comments; a dump that repeats a floor is read in the order of time
    SELECT thread_doc, floor, min_by(doc_id, (created_at IS NULL, created_at, doc_id)) AS target_doc
    FROM rows WHERE floor IS NOT NULL AND kind IN ('comment', 'reply') GROUP BY ALL
),
ordered AS (
    SELECT doc_id, thread_doc, author_key, floor,
        lag(doc_id) OVER thread AS before_doc, lag(author_key) OVER thread AS before_author
    FROM rows WHERE kind = 'comment' AND source <> 'threads'
    WINDOW thread AS (PARTITION BY thread_doc ORDER BY floor, created_at, doc_id)
),
runs AS (  -- pushes in a row by one author are one utterance, named by the first of them
    SELECT doc_id, first_value(doc_id) OVER (PARTITION BY thread_doc, part ORDER BY floor, doc_id) AS run_doc
    FROM (
        SELECT o.*, sum((o.author_key IS DISTINCT FROM o.before_author OR o.author_key IS NULL)::INT)
            OVER (PARTITION BY o.thread_doc ORDER BY o.floor, o.doc_id) AS part
        FROM ordered o JOIN rows r USING (doc_id) WHERE r.source = 'ptt' AND r.kind = 'comment'
    )
),
hosts AS (SELECT doc_id AS thread_doc, author_key AS host FROM rows WHERE doc_id = thread_doc AND author_key IS NOT NULL),
originals AS (SELECT source, board, topic, doc_id, created_at FROM rows WHERE kind = 'post' AND topic IS NOT NULL AND NOT is_reply),
chained AS (  -- the nearest original of the title before a Re:, where the board did not tell
    SELECT r.doc_id, max_by(o.doc_id, (o.created_at, o.doc_id)) AS original_doc
    FROM rows r JOIN originals o USING (source, board, topic)
    WHERE r.is_reply AND r.kind <> 'comment' AND o.doc_id <> r.doc_id
        AND r.created_at - o.created_at BETWEEN INTERVAL 0 DAY AND to_days($reply_days)
    GROUP BY ALL
),
edges AS (
    SELECT m.doc_id, coalesce(f.target_doc, CASE WHEN m.target = 0 THEN m.thread_doc END) AS parent_doc,
        CASE WHEN f.target_doc IS NULL AND m.target > 0 THEN 'floor_gone' ELSE 'floor' END AS evidence,
        0.98 AS certainty, m.place AS strength
    FROM marks m LEFT JOIN floors f ON f.thread_doc = m.thread_doc AND f.floor = m.target
    UNION ALL
    SELECT a.doc_id, o.before_doc, 'above', 0.7, 1 + 1e8
    FROM addressed a JOIN ordered o USING (doc_id) WHERE a.above AND o.before_doc IS NOT NULL
    UNION ALL  -- the poster answers those who commented, not the own post
    SELECT o.doc_id, o.before_doc, 'host', 0.6, 3e8
    FROM ordered o JOIN hosts h USING (thread_doc)
    WHERE o.author_key = h.host AND o.before_author IS DISTINCT FROM h.host AND o.before_doc IS NOT NULL
    UNION ALL
    SELECT doc_id, parent_doc,
        CASE
            WHEN source = 'threads' OR kind = 'reply' THEN 'site'
            WHEN kind IN ('comment', 'reply') THEN 'thread'
            WHEN coalesce(quoted, '') <> '' THEN 'quote' ELSE 'title'
        END,
        CASE WHEN source = 'threads' OR kind = 'reply' THEN 0.98 WHEN kind IN ('comment', 'reply') THEN 0.88 ELSE 0.9 END, 4e8
    FROM rows WHERE parent_doc IS NOT NULL AND parent_doc <> doc_id
    UNION ALL
    SELECT doc_id, original_doc, 'title', 0.8, 5e8 FROM chained
),
ranked AS (
    SELECT e.*, row_number() OVER (PARTITION BY e.doc_id ORDER BY strength, e.parent_doc) AS rank
    FROM edges e
)
SELECT c.doc_id, e.parent_doc, e.evidence, e.certainty, e.rank::INTEGER AS rank, c.source, c.board, c.thread_doc,
    coalesce(u.run_doc, c.doc_id) AS run_doc, coalesce(c.author_key = h.host, false) AS by_host,
    c.author_key, p.author_key AS parent_author, c.origin, p.origin AS parent_origin
FROM ranked e
JOIN rows c USING (doc_id)
LEFT JOIN rows p ON p.doc_id = e.parent_doc
LEFT JOIN hosts h ON h.thread_doc = c.thread_doc
LEFT JOIN runs u ON u.doc_id = c.doc_id
WHERE (e.rank = 1 OR e.evidence = 'floor') AND (e.parent_doc IS NULL OR p.doc_id IS NOT NULL)
    AND (e.evidence NOT IN ('quote', 'title') OR p.created_at IS NULL OR c.created_at IS NULL OR p.created_at <= c.created_at)
ORDER BY c.doc_id, rank
