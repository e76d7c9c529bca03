"""The provenance of a run."""

from pathlib import Path

from record_factory import serving_record

from experiments.results.provenance import versions

RECORDS = [
    serving_record("fair", requests=6, layers=2),
    serving_record("mfs:U=0.3", requests=6, layers=2),
]


def test_versions_name_python_ours_and_what_the_fabric_reported() -> None:
    found = versions(RECORDS, {"trace.jsonl": "abc"})
    assert found["open_vswitch"] == "3.1.0"
    assert {"python", "pyarrow"} <= found.keys()
    assert "datapath" not in found


def test_versions_name_the_code_and_the_files_that_were_read() -> None:
    found = versions(RECORDS, {"trace.jsonl": "abc"})
    assert found["files"] == {"trace.jsonl": "abc"}
    assert set(found["code"]) == {"path", "source", "commit", "changed", "plugins"}
    assert Path(found["code"]["path"], "testbed").is_dir()
