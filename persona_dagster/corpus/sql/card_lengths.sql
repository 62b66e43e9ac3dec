-- Usable rows by length: each bin is twice as wide as the one before.
SELECT bins.least, bins.most, count(*) AS rows
FROM shape
JOIN (
    VALUES (0, 5), (5, 10), (10, 20), (20, 40), (40, 80), (80, 160), (160, 320), (320, 640), (640, 1280),
    (1280, 2560), (2560, NULL)
) AS bins (least, most) ON chars > least AND (chars <= most OR most IS NULL)
WHERE usable
GROUP BY ALL
ORDER BY least
