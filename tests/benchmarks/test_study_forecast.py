"""The study of the forecast prints how it does on worlds left out, and writes the file that merit advise reads."""

import json

from etils import epath

from benchmarks.study_forecast import main
from merit_jax.advice.map_forecast import read_map
from tests.support.maps import map_of


def test_it_prints_a_row_for_each_measure_and_writes_a_forecast(tmp_path, capsys):
    cells = map_of(lambda shared, features: 10 * shared, seeds=1)
    (tmp_path / "map.json").write_text(json.dumps(cells))
    main([f"--map={tmp_path / 'map.json'}", f"--out={tmp_path / 'forecast.json'}"])
    printed = capsys.readouterr().out
    found = read_map(epath.Path(tmp_path / "forecast.json"))
    assert "12 cells, 12 seeds of them in all" in printed
    for measure in ("skill at 95 % retention", "mean of the suites"):
        assert f"| {measure} " in printed
    assert f"{found.laws['interpolated_skill'].held_out.regret['always joint']:.2f}" in printed
