"""Which traffic classes a server sets from outside: in the environment, in files of NCCL, on devices."""

from pathlib import Path

from workers.traffic_classes import Setting, settings


def conf(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_server_that_sets_nothing_has_no_classes(tmp_path: Path) -> None:
    assert settings({"HOME": str(tmp_path), "NCCL_DEBUG": "INFO", "NCCL_IB_TC": ""}, tmp_path) == ()


def test_the_environment_sets_classes_of_nccl_and_ucx(tmp_path: Path) -> None:
    found = settings({"NCCL_IB_TC": "106", "UCX_IB_TRAFFIC_CLASS": "auto"}, tmp_path)
    assert found == (
        Setting(name="NCCL_IB_TC", value="106", where="environment"),
        Setting(name="UCX_IB_TRAFFIC_CLASS", value="auto", where="environment"),
    )


def test_files_of_nccl_set_classes_too(tmp_path: Path) -> None:
    """Comments, spaces and other settings are no classes."""
    own = conf(
        tmp_path / "home" / ".nccl.conf", "# NCCL_IB_TC=1\nNCCL_IB_SL = 3  # lossless\nNCCL_DEBUG=WARN\n"
    )
    everybody = conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\nNCCL_IB_SL=5\n")
    assert settings({"HOME": str(tmp_path / "home")}, tmp_path) == (
        Setting(name="NCCL_IB_SL", value="3", where=str(own)),
        Setting(name="NCCL_IB_TC", value="104", where=str(everybody)),
    )


def test_a_file_that_the_environment_names_goes_before_the_one_at_home(tmp_path: Path) -> None:
    conf(tmp_path / "home" / ".nccl.conf", "NCCL_IB_TC=1\n")
    named = conf(tmp_path / "named.conf", "NCCL_IB_TC=2\n")
    found = settings({"HOME": str(tmp_path / "home"), "NCCL_CONF_FILE": str(named)}, tmp_path)
    assert found == (Setting(name="NCCL_IB_TC", value="2", where=str(named)),)


def test_the_environment_goes_before_files(tmp_path: Path) -> None:
    conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\n")
    [found] = settings({"NCCL_IB_TC": "0"}, tmp_path)
    assert (found.value, found.where) == ("0", "environment")


def test_minus_one_is_no_class(tmp_path: Path) -> None:
    conf(tmp_path / "etc" / "nccl.conf", "NCCL_IB_TC=104\n")
    assert settings({"NCCL_IB_TC": "-1"}, tmp_path) == ()


def test_a_device_may_have_a_class_for_all_that_it_sends(tmp_path: Path) -> None:
    devices = tmp_path / "sys" / "class" / "infiniband"
    path = conf(devices / "mlx5_0" / "tc" / "1" / "traffic_class", "106\n")
    conf(devices / "mlx5_1" / "tc" / "1" / "traffic_class", "\n")
    assert settings({}, tmp_path) == (Setting(name="traffic_class of mlx5_0", value="106", where=str(path)),)
