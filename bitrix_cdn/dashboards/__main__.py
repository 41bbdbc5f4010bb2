"""`python -m bitrix_cdn.dashboards OUTPUT_DIR` writes the dashboards; `queries` instead: their queries."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from bitrix_cdn.dashboards import files
from bitrix_cdn.dashboards.panels import Options
from bitrix_cdn.dashboards.queries import queries


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bitrix_cdn.dashboards", description=__doc__)
    parser.add_argument(
        "output", metavar="OUTPUT_DIR", help="where the files go; the word `queries` prints the queries"
    )
    parser.add_argument("--runbooks", default="", help="address of the folder of the runbooks, for links")
    arguments = parser.parse_args()
    made = files(Options(runbooks=arguments.runbooks))
    if arguments.output == "queries":
        for query in queries(made):
            print(json.dumps(asdict(query)))
        return
    directory = Path(arguments.output)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (directory / name).write_text(content)


if __name__ == "__main__":
    main()
