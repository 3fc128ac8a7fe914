"""`wait_for_schema.py prefect|mlflow`: wait until DATABASE_URL is at the revision that the image's migrations end with.

Another process migrates it (the Jobs migrate-prefect and migrate-mlflow); a server that came first would fail half way,
and two that migrate at once would do worse. Ends with 0, or with 1 after WAIT_S seconds (600).
"""

import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

PROGRAMS = {
    "prefect": ("prefect", "server/database/_migrations", "server/database/_migrations/versions/postgresql"),
    "mlflow": ("mlflow", "store/db_migrations", "store/db_migrations/versions"),
}
SYNCHRONOUS = ("psycopg", "psycopg2")


def heads(program: str) -> set[str]:
    """The last revisions of a program's migrations, read from its package without importing it."""
    package, scripts, versions = PROGRAMS[program]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed in this image")
    root = Path(found.origin).parent
    config = Config()
    config.set_main_option("script_location", str(root / scripts))
    config.set_main_option("version_locations", str(root / versions))
    return set(ScriptDirectory.from_config(config).get_heads())


def revisions(url: str) -> set[str]:
    """The revisions that the database is at, none for an empty one. Raises SQLAlchemyError where it does not answer."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        driver = next(name for name in SYNCHRONOUS if find_spec(name))
        # asyncpg's name for it is `ssl`, libpq's is `sslmode`
        query = {"sslmode" if name == "ssl" else name: value for name, value in parsed.query.items()}
        parsed = parsed.set(drivername=f"postgresql+{driver}", query=query)
    engine = create_engine(parsed)
    try:
        with engine.connect() as connection:
            return set(MigrationContext.configure(connection).get_current_heads())
    finally:
        engine.dispose()


def wait(program: str, url: str, wait_s: float, every_s: float = 2.0) -> bool:
    """Whether the schema came to its head within `wait_s`; says why it waits, once for each reason."""
    wanted, said = heads(program), ""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            at = revisions(url)
            if at == wanted:
                return True
            reason = f"schema of {program} is at {sorted(at) or 'nothing'}, wanted {sorted(wanted)}"
        except SQLAlchemyError as error:
            reason = f"database of {program} does not answer: {type(error).__name__}"  # its text may hold the password
        if reason != said:
            print(reason, flush=True)
            said = reason
        if time.monotonic() >= deadline:
            return False
        time.sleep(every_s)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROGRAMS:
        raise SystemExit(f"usage: wait_for_schema.py {'|'.join(PROGRAMS)}")
    sys.exit(0 if wait(sys.argv[1], os.environ["DATABASE_URL"], float(os.environ.get("WAIT_S", "600"))) else 1)
