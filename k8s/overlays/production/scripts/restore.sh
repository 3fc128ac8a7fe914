#!/usr/bin/env bash
# restore.sh FOLDER: put the dumps of dump.sh back, each into its database, in one transaction: whole or not at all. What stands there is
# dropped first, so that nothing may be connected: scale Prefect, MLflow and the feature server to nothing before (docs/operations.md).
set -euo pipefail

restore() {
  local url=${2/[?]ssl=/?sslmode=} # asyncpg's name of it
  pg_restore --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error \
    --dbname="postgresql://${url#*://}" "$folder/$1.dump"
  echo "$1: restored"
}

folder=$1
restore prefect "$PREFECT_URL"
restore mlflow "$MLFLOW_URL"
restore mlflow_auth "$MLFLOW_AUTH_URL"
restore feast "$FEAST_URL"
