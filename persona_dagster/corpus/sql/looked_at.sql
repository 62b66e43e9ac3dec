-- Some rows by chance, the same ones each time: both levels of their text.
SELECT post_id, coalesce(text, ''), coalesce(text_raw, '')
FROM posts
ORDER BY hash(source, board, post_id)
LIMIT $rows
