-- One partition of {table} becomes what `incoming` holds; rows that are the same stay untouched.
MERGE INTO {table} AS stored
USING incoming
ON stored.{partition} = incoming.{partition} AND {on}
WHEN MATCHED AND ({differs}) THEN UPDATE SET {update}
WHEN NOT MATCHED THEN INSERT BY NAME
WHEN NOT MATCHED BY SOURCE AND stored.{partition} = $partition THEN DELETE
RETURNING merge_action
