-- Rows, usable rows, copies, personal data masked and tokens of each board.
SELECT
    source, board,
    count(*) AS rows,
    count(*) FILTER (usable) AS usable,
    count(*) FILTER (copy) AS copies,
    CAST(sum(len(masked)) AS BIGINT) AS personal_data,
    CAST(round(sum(tokens)) AS BIGINT) AS tokens
FROM shape
GROUP BY source, board
ORDER BY rows DESC, source, board
