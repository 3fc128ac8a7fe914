"""A flow of one stage that keeps its parts: the first attempt does a part and hangs, the next one finds it and ends."""

import time
from pathlib import Path

from prefect import flow

from flows.stage import run_stage, stage_task


@stage_task(name="lose and go on")
def lose_and_go_on(id_: str) -> None:
    def work(out: Path, progress) -> dict:
        part = out / "part"
        if part.exists():
            return {"found": part.read_text()}
        part.write_text("of the first attempt")
        time.sleep(600)
        raise AssertionError("nobody ended this attempt")

    run_stage("train_signal", id_, work, keeps_parts=True)


@flow(name="lost")
def lost_flow(id_: str) -> None:
    lose_and_go_on(id_)
