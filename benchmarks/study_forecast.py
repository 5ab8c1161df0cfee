"""Fits the forecast of merit advise to a map, tries it on worlds left out, and writes it as one JSON file.

python -m benchmarks.study_forecast --map=runs/map/map.json                                        # the table only
python -m benchmarks.study_forecast --map=runs/map/map.json --out=merit_jax/advice/forecast.json   # the shipped file
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from etils import epath
from tabulate import tabulate

from merit_jax.advice.map_forecast import MapForecast, read_map, write_forecast
from merit_jax.advice.mixed_model import KINDS
from merit_jax.advice.observations import MEASURES


def table(found: MapForecast) -> str:
    """Returns a row for each measure, with and without a pilot: outcome on worlds left out, and standard deviations in points."""
    rows = []
    for kind, laws in (("", found.laws), (", with a pilot", found.pilot)):
        for measure, law in laws.items():
            row: dict[str, str] = {"forecast": MEASURES[measure] + kind}
            if record := law.held_out:
                row |= {"rank correlation": f"{record.rank_correlation:.2f}"}
                row |= {f"regret, {name}": f"{value:.2f}" for name, value in record.regret.items()}
                row |= {"error": f"{record.error:.2f}", "error of 0": f"{record.error_of_zero:.2f}"}
                row |= {"in the interval": f"{record.covered:.0%}"}
            spread = law.forecaster.posterior.variances**0.5
            row |= {f"std, {kind}": f"{value:.2f}" for kind, value in zip(KINDS, spread, strict=True)}
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", type=Path, required=True, help="map.json of benchmarks.study_map")
    parser.add_argument("--out", type=Path, help="file to write; left out: none")
    options = parser.parse_args(arguments)
    found = read_map(epath.Path(options.map))
    print(f"{found.cells} cells, {found.seeds} seeds of them in all\n\n{table(found)}")
    if options.out:
        write_forecast(epath.Path(options.out), found)


if __name__ == "__main__":
    main()
