"""Without a GPU the check says so in one line; with one, it and tests/gpu tell more."""

import json
from pathlib import Path

import onnxruntime
import pytest

from tests.gpu.check import Report, main
from tests.gpu.kernels import group_of
from trunkline.device import CUDA

without_cuda = pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime is built with CUDA"
)


@without_cuda
def test_without_a_gpu_it_says_so_and_ends_with_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(trained), str(tmp_path / "out"), "--json", str(tmp_path / "gpu.json")]
    assert main(given) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("gpu_check: cuda:0: onnxruntime")
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda:0,cuda:1", "cuba"])
def test_what_is_no_gpu_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    assert main(["run", str(tmp_path / "out"), "--device", device]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_stage_that_breaks_fails_and_the_next_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "gpu.json", {"date": "today"})

    def breaks() -> None:
        raise RuntimeError("out of memory\nmore")

    report.stage("first", breaks)
    report.stage("second", lambda: {"speed": 3})
    report.check("fast", 3, True, ">= 2")
    report.write()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["date"] == "today"
    assert [(one["name"], one["pass"]) for one in found["checks"]] == [
        ("first", False),
        ("fast", True),
    ]
    assert found["checks"][0]["value"] == "RuntimeError: out of memory"
    assert found["figures"] == {"second": {"speed": 3}}
    assert "FAILED  first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kernel", "group"),
    [
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>", "attention"),
        ("fmha_cutlassF_f16_aligned_64x64_rf_sm80", "attention"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT", "products"),
        ("sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("void onnxruntime::cuda::SkipLayerNormKernelSmall<__half, 128u, 4>", "normalisation"),
        ("void onnxruntime::contrib::cuda::BiasGeluKernel<__half, 256, 4>", "activation"),
        ("void onnxruntime::cuda::_GatherKernel<int, __half>", "moving data"),
        ("Memcpy HtoD (Pinned -> Device)", "moving data"),
        ("void onnxruntime::cuda::_BinaryElementWise<float>", "other"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, group: str) -> None:
    assert group_of(kernel) == group
