"""Starts the one local Spark session that the data stages share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from feature_repo.errors import ShortfallError
from feature_repo.pipeline.spark_io import ONE_SPLIT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

JAVA_MAJOR = 17
_INSTALL = "install a Java 17 runtime (Debian: openjdk-17-jre-headless)"
_VERSION = re.compile(r'version "(\d+)')
_LOG4J = """\
rootLogger.level = error
rootLogger.appenderRef.stdout.ref = console
logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer
logger.gateway.level = error
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %p %c{1}: %m%n
"""


def find_java() -> Path:
    """Path of a Java 17 `java` program: `JAVA_HOME` where it is set, else the first on `PATH`.

    Raises ShortfallError where there is none, or where the one found is of another major version.
    """
    home = os.environ.get("JAVA_HOME")
    found = Path(home, "bin", "java") if home else shutil.which("java")
    if found is None or not Path(found).is_file():
        where = f"JAVA_HOME={home} holds no bin/java" if home else "no java on PATH and JAVA_HOME is not set"
        raise ShortfallError(f"Spark needs Java {JAVA_MAJOR}: {where}; {_INSTALL}")
    try:
        answer = subprocess.run([str(found), "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ShortfallError(f"Spark needs Java {JAVA_MAJOR}: {found} does not run ({error}); {_INSTALL}") from error
    match = _VERSION.search(answer.stderr + answer.stdout)
    if match is None or int(match.group(1)) != JAVA_MAJOR:
        seen = f"is version {match.group(1)}" if match else "does not tell its version"
        raise ShortfallError(f"Spark needs Java {JAVA_MAJOR}: {found} {seen}; {_INSTALL}, or point JAVA_HOME at it")
    return Path(found)


def spark_session(
    cores: int = 2, driver_memory: str = "2g", master: str | None = None, conf: Mapping[str, str] | None = None
) -> SparkSession:
    """Start (or join) the Spark session of this process: loopback only, no UI, UTC, quiet.

    Args:
        cores: worker threads of the local master; also the number of shuffle partitions times two.
        driver_memory: heap of the Java process, e.g. `2g`; taken at its start, so only the first call decides.
        master: a Spark master URL, or None for `local[cores]`.
        conf: what such a master needs besides; goes before what is set here, and unbinds this side from loopback.

    Returns:
        The session. Integers stay int64 from file to frame: events keep their nanoseconds.

    Raises:
        ShortfallError: no Java 17 runtime is found.
    """
    java = find_java()
    # pyspark's launcher looks at JAVA_HOME first; a java on PATH may be a link into the runtime's folder.
    os.environ.setdefault("JAVA_HOME", str(java.resolve().parent.parent))
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    if conf is None:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    scratch = Path(tempfile.mkdtemp(prefix="shortfall-spark-"))
    logging_config = scratch / "log4j2.properties"
    logging_config.write_text(_LOG4J)
    builder = SparkSession.builder.appName("shortfall").master(master or f"local[{cores}]")
    settings = _settings(cores, driver_memory, scratch, logging_config, local=master is None) | dict(conf or {})
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _remove_at_exit(scratch)
    return session


def _settings(cores: int, memory: str, scratch: Path, logging_config: Path, *, local: bool) -> dict[str, str]:
    settings = {
        "spark.driver.memory": memory,
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile=file:{logging_config} "
        f"-XX:+UseSerialGC -Djava.io.tmpdir={scratch}",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",  # 4 MB of events
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        # Nanoseconds stay integers, and parquet files from elsewhere with TIMESTAMP(NANOS) read as int64 too.
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",  # a symbol 2409 stays a string
    }
    settings |= ONE_SPLIT
    if local:
        settings |= {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.local.dir": str(scratch / "local"),
        }
    return settings


def _remove_at_exit(scratch: Path) -> None:
    import atexit

    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
