"""ONNX Runtime is asked for exact products of int8 where the CPU's own saturate."""

import sys
from unittest.mock import MagicMock

import pytest

from mlproject.inference import onnx_sessions

PLAIN = "processor\t: 0\nflags\t\t: fpu avx2 avx512f\nbugs\t\t: \n"
SERVER = "processor\t: 1\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"
DESKTOP = "processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\nvmx flags\t: vnmi\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("cpuinfo", "exact"),
    [(PLAIN, False), (SERVER, True), (DESKTOP, True), (SERVER + PLAIN, False), (ARM, False)],
    ids=["AVX-512 without VNNI", "AVX-512 VNNI", "AVX VNNI", "two kinds of CPU", "ARM"],
)
def test_exact_products_are_asked_for_unless_each_cpu_has_vnni(
    cpuinfo, exact, monkeypatch, tmp_path
):
    runtime = MagicMock()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    monkeypatch.setattr(onnx_sessions, "_LINUX_CPUS", file)
    onnx_sessions.onnx_session("network.onnx", threads=1)
    set_option = runtime.SessionOptions.return_value.add_session_config_entry
    asked = [("session.x64quantprecision", "1")]
    assert ([] if exact else asked) == [call.args for call in set_option.call_args_list]


def test_exact_products_are_asked_for_where_nothing_tells_of_the_cpus(monkeypatch, tmp_path):
    runtime = MagicMock()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setattr(onnx_sessions, "_LINUX_CPUS", tmp_path / "absent")
    onnx_sessions.onnx_session("network.onnx", threads=1)
    set_option = runtime.SessionOptions.return_value.add_session_config_entry
    set_option.assert_called_once_with("session.x64quantprecision", "1")
