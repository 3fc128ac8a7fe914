#!/usr/bin/env bash
# dump.sh FOLDER: a dump of each database, in pg_dump's custom format; pg_restore reads any of them by itself. The addresses come from the
# secrets that the servers use, whose driver (postgresql+asyncpg://) is left out.
set -euo pipefail

dump() {
  local url=${2/[?]ssl=/?sslmode=} # asyncpg's name of it
  pg_dump --format=custom --compress=6 --lock-wait-timeout=60s --file="$folder/$1.dump" --dbname="postgresql://${url#*://}"
  pg_restore --list "$folder/$1.dump" >/dev/null # a dump that cannot be listed is none
  echo "$1: $(stat -c %s "$folder/$1.dump") bytes"
}

folder=$1
dump prefect "$PREFECT_URL"
dump mlflow "$MLFLOW_URL"
dump mlflow_auth "$MLFLOW_AUTH_URL"
dump feast "$FEAST_URL"
