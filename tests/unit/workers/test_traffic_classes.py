"""Which traffic classes a server sets from outside: in the environment, in files of NCCL, on devices."""

from pathlib import Path

import pytest

from workers.traffic_classes import settings


def conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(
    root: Path, environment: dict[str, str] | None = None, home: Path | None = None
) -> list[tuple[str, str, str]]:
    """Name, value and place of each setting that is read. The files of the machine are below `root`."""
    made = settings(environment or {}, root, home or root / "nobody")
    return [(one.name, one.value, one.where) for one in made if one.read]


def test_a_server_that_sets_nothing_has_no_classes(tmp_path: Path) -> None:
    assert settings({"NCCL_DEBUG": "INFO", "NCCL_IB_TC": ""}, tmp_path, tmp_path) == ()


def test_the_environment_sets_classes_of_nccl_and_ucx(tmp_path: Path) -> None:
    assert found(tmp_path, {"NCCL_IB_TC": "106", "UCX_IB_TRAFFIC_CLASS": "auto", "UCX_IB_SL": "3"}) == [
        ("NCCL_IB_TC", "106", "environment"),
        ("UCX_IB_SL", "3", "environment"),
        ("UCX_IB_TRAFFIC_CLASS", "auto", "environment"),
    ]


def test_files_of_nccl_set_classes_with_their_lines(tmp_path: Path) -> None:
    """Comments and other settings are no classes."""
    own = conf(tmp_path / "home" / ".nccl.conf", "# NCCL_IB_TC=1\nNCCL_DEBUG=WARN\nNCCL_IB_SL=3\n")
    everybody = conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\nNCCL_IB_SL=5\n")
    assert found(tmp_path, home=tmp_path / "home") == [
        ("NCCL_IB_SL", "3", f"{own}, line 3"),
        ("NCCL_IB_TC", "104", f"{everybody}, line 1"),
    ]


def test_nccl_looks_for_a_home_in_the_user_database_only(tmp_path: Path) -> None:
    conf(tmp_path / "elsewhere" / ".nccl.conf", "NCCL_IB_TC=1\n")
    assert found(tmp_path, {"HOME": str(tmp_path / "elsewhere")}) == []


def test_a_file_that_the_environment_names_goes_before_the_one_at_home(tmp_path: Path) -> None:
    conf(tmp_path / "home" / ".nccl.conf", "NCCL_IB_TC=1\n")
    named = conf(tmp_path / "named.conf", "NCCL_IB_TC=2\n")
    everybody = conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=3\nNCCL_IB_SL=4\n")
    assert found(tmp_path, {"NCCL_CONF_FILE": str(named)}, tmp_path / "home") == [
        ("NCCL_IB_TC", "2", f"{named}, line 1"),
        ("NCCL_IB_SL", "4", f"{everybody}, line 2"),
    ]


def test_the_environment_goes_before_files(tmp_path: Path) -> None:
    conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\n")
    assert found(tmp_path, {"NCCL_IB_TC": "0"}) == [("NCCL_IB_TC", "0", "environment")]


@pytest.mark.parametrize("none", ["-1", ""])
def test_minus_one_and_nothing_in_the_environment_are_no_class_and_go_before_files(
    tmp_path: Path, none: str
) -> None:
    conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\n")
    assert found(tmp_path, {"NCCL_IB_TC": none}) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 106", "106"),
        ("106  # lossless", "106"),
        ("0x6a", "106"),
        ("0X6Ag", "106"),
        ("0152", "106"),
        ("08", "0"),
        ("0x", "0"),
        ("lossless", "0"),
        ("+3", "3"),
        (" -1 # none", None),
        ("9223372036854775808", None),
    ],
)
def test_a_number_is_read_as_c_does(tmp_path: Path, text: str, value: str | None) -> None:
    """NCCL calls strtoll with base 0. What does not fit into 64 bits, it ignores."""
    conf(tmp_path / "etc" / "nccl.conf", f"NCCL_IB_TC={text}\n")
    assert [one[1] for one in found(tmp_path)] == ([] if value is None else [value])


@pytest.mark.parametrize(
    "line", ["NCCL_IB_TC =106", " NCCL_IB_TC=106", "nccl_ib_tc=106", "\tNCCL_IB_SL=1", "Nccl_Ib_Sl=1"]
)
def test_a_line_that_nccl_takes_for_another_name_is_no_class_and_told(tmp_path: Path, line: str) -> None:
    everybody = conf(tmp_path / "etc" / "nccl.conf", f"{line}\nNCCL_IB_TC=104\nNCCL_IB_SL=3\n")
    assert len(found(tmp_path)) == 2
    [told] = [one for one in settings({}, tmp_path, tmp_path) if not one.read]
    assert (told.name, told.where) == (line.partition("=")[0], f"{everybody}, line 1")


def test_a_comment_begins_with_the_line_only(tmp_path: Path) -> None:
    """A space before `#` makes it a part of the name, which is no variable of NCCL."""
    conf(tmp_path / "etc" / "nccl.conf", " # NCCL_IB_TC=106\nNCCL_IB_TC#=106\n#NCCL_IB_SL=2\n")
    assert settings({}, tmp_path, tmp_path) == ()


def test_a_variable_in_small_letters_is_no_class_and_told(tmp_path: Path) -> None:
    [told] = settings({"nccl_ib_tc": "106"}, tmp_path, tmp_path)
    assert (told.name, told.where, told.read) == ("nccl_ib_tc", "environment", False)


def test_a_library_that_sets_variables_is_told(tmp_path: Path) -> None:
    assert found(tmp_path, {"NCCL_ENV_PLUGIN": "site"}) == [("NCCL_ENV_PLUGIN", "site", "environment")]
    assert found(tmp_path, {"NCCL_ENV_PLUGIN": "none"}) == []


def test_files_of_nccl_that_cannot_be_read_set_nothing(tmp_path: Path) -> None:
    (tmp_path / "etc" / "nccl.conf").mkdir(parents=True)
    assert found(tmp_path, {"NCCL_CONF_FILE": str(tmp_path / "missing")}) == []


def test_transports_of_ucx_have_classes_of_their_own(tmp_path: Path) -> None:
    environment = {
        "UCX_RC_MLX5_TRAFFIC_CLASS": "104",
        "UCX_SL": "1",
        "UCX_TLS": "rc",
        "ucx_ib_sl": "2",
        "UCX_DC_MLX5_SL": "3",
    }
    assert [one[0] for one in found(tmp_path, environment)] == [
        "UCX_DC_MLX5_SL",
        "UCX_RC_MLX5_TRAFFIC_CLASS",
        "UCX_SL",
    ]


def test_a_file_of_ucx_sets_classes_too(tmp_path: Path) -> None:
    """It is an INI file: spaces do not matter, and the last of equal names counts."""
    everybody = conf(
        tmp_path / "etc" / "ucx" / "ucx.conf",
        "[a]\n; UCX_IB_SL=1\n# UCX_IB_SL=2\nUCX_IB_SL=3\nUCX_IB_SL = 4 ; four\nUCX_IB_TRAFFIC_CLASS=104\n",
    )
    own = conf(tmp_path / "home" / "ucx.conf", "UCX_IB_TRAFFIC_CLASS=96\n")
    assert found(tmp_path, {"HOME": str(own.parent)}) == [
        ("UCX_IB_SL", "4", f"{everybody}, line 5"),
        ("UCX_IB_TRAFFIC_CLASS", "96", f"{own}, line 1"),
    ]
    named = conf(tmp_path / "named" / "ucx.conf", "UCX_IB_SL=7\n")
    environment = {"UCX_CONFIG_DIR": str(named.parent), "UCX_IB_TRAFFIC_CLASS": "0"}
    assert found(tmp_path, environment) == [
        ("UCX_IB_SL", "7", f"{named}, line 1"),
        ("UCX_IB_TRAFFIC_CLASS", "0", "environment"),
    ]


def test_a_device_may_have_a_class_for_all_that_it_sends(tmp_path: Path) -> None:
    devices = tmp_path / "sys" / "class" / "infiniband"
    path = conf(devices / "mlx5_0" / "tc" / "1" / "traffic_class", "106\n")
    conf(devices / "mlx5_1" / "tc" / "1" / "traffic_class", "\n")
    assert found(tmp_path) == [("traffic_class of mlx5_0", "106", str(path))]
