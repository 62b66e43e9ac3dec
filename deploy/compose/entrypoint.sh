#!/bin/sh
# Dagster reads the database's password from the environment; the secret stays out of compose files.
set -eu
[ -r /run/secrets/pg_password ] && DAGSTER_PG_PASSWORD=$(cat /run/secrets/pg_password) && export DAGSTER_PG_PASSWORD
exec "$@"
