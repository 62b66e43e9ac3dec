-- Personal data masked, by kind: how often, and on how many boards.
SELECT kind, count(*) AS found, count(DISTINCT (source, board)) AS boards
FROM (SELECT source, board, unnest(masked) AS kind FROM shape)
GROUP BY kind
ORDER BY found DESC, kind
