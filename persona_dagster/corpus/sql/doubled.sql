-- How many doc_ids stand on more than one row of the corpus.
SELECT count(*) FROM (SELECT source, board, post_id FROM posts GROUP BY ALL HAVING count(*) > 1)
