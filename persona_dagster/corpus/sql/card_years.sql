-- Rows by the year in which they were written.
SELECT CAST(year(created_at) AS VARCHAR) AS year, count(*) AS rows
FROM shape
WHERE created_at IS NOT NULL
GROUP BY ALL
ORDER BY year
