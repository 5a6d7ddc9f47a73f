"""The plugins folder: one flat file. That Airflow loads it is shown in tests/test_timetables.py and tests/dags."""

from pathlib import Path

PLUGINS = Path(__file__).parents[2] / "plugins"


def test_the_folder_is_flat_so_that_no_module_of_ours_hides_one_of_pythons():
    # Airflow runs every file below this folder as a top-level module of its own name.
    assert [file.name for file in PLUGINS.rglob("*.py")] == ["leadferry_plugin.py"]
