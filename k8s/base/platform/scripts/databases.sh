#!/usr/bin/env bash
# A database and a user for each of Prefect, MLflow and Feast; run once, when Postgres makes its data folder. Nobody reads another's.
# MLflow keeps its users in a second database. Prefect's migrations make the extension pg_trgm, which its database's owner may.
set -euo pipefail

create() {
  psql -v ON_ERROR_STOP=1 -v "user=$1" -v "password=$2" -v "database=$3" --username postgres --dbname postgres <<'SQL'
SELECT format('CREATE ROLE %I LOGIN PASSWORD %L', :'user', :'password') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'user') \gexec
SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', :'database') \gexec
SQL
}

export PGPASSWORD=$POSTGRES_PASSWORD
create prefect "$PREFECT_PASSWORD" prefect
create mlflow "$MLFLOW_PASSWORD" mlflow
create mlflow "$MLFLOW_PASSWORD" mlflow_auth
create feast "$FEAST_PASSWORD" feast
