"""In which numbers a device computes."""

import pytest

from zoo.parallel import devices


@pytest.mark.parametrize(
    ("flags", "expected"), [("fma avx2", "float32"), ("avx2 amx_bf16", "bfloat16"), ("avx512_bf16 fma", "bfloat16")]
)
def test_a_cpu_computes_in_bfloat16_only_where_it_multiplies_it(monkeypatch, tmp_path, flags, expected):
    info = tmp_path / "cpuinfo"
    info.write_text(f"flags : {flags}\n")
    monkeypatch.setattr(devices, "CPU_INFO", info)
    assert devices.compute_dtype("auto") == expected


def test_what_is_asked_for_is_done():
    assert [devices.compute_dtype(name) for name in ("float32", "bfloat16")] == ["float32", "bfloat16"]
