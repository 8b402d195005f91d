"""Run the stages of `make test` one after another, whatever becomes of them, and tell their times.

python tests/stage.py NAME COMMAND...   runs a stage and notes how long it took and how it ended
python tests/stage.py                   prints the table; exits with 1 if a stage failed
"""

import json
import subprocess
import sys
import time
from pathlib import Path

NOTES = Path("_build/stages.json")


def main(arguments: list[str]) -> int:
    stages = json.loads(NOTES.read_text()) if NOTES.exists() else []
    if not arguments:
        NOTES.unlink(missing_ok=True)
        return table(stages)
    name, *command = arguments
    print(f"== {name}: {' '.join(command)}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command).returncode
    stages.append((name, time.monotonic() - began, status))
    NOTES.parent.mkdir(exist_ok=True)
    NOTES.write_text(json.dumps(stages))
    return 0


def table(stages: list[list]) -> int:
    """Print the stages with their seconds and ends; the exit status of the whole."""
    for name, seconds, status in stages:
        print(f"{name:20}{seconds:8.0f} s   {'passed' if status == 0 else f'FAILED ({status})'}")
    print(f"{'all':20}{sum(seconds for _, seconds, _ in stages):8.0f} s")
    return int(not stages or any(status for _, _, status in stages))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
