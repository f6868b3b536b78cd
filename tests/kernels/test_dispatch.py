import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from kernels import dispatch
from kernels.aggregate import aggregate_tokens, fuse_tokens
from kernels.attention import attend
from kernels.crf import dense_crf
from kernels.dispatch import choose
from kernels.fba import fba_contrastive
from kernels.foreground import foreground_mask
from kernels.kmeans import cluster_sums, kmeans, lloyd_step, momentum_centroid_update, nearest_centroid
from kernels.linear import linear_gelu
from kernels.views import photometric_views

X = torch.ones(4, 2)
X16 = torch.ones(16, 16, dtype=torch.float16)
ON_GPU = SimpleNamespace(is_cuda=True, device="cuda:0")
TOKENS, D1, D2 = [torch.ones(1, 2, 2)], torch.ones(2), torch.ones(4)
PROBABILITIES, IMAGES = torch.ones(1, 2, 2, 2), torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
CALLS = {
    "aggregate_tokens": lambda impl: aggregate_tokens(TOKENS, [(1, 1)], D1, D1, impl=impl),
    "fuse_tokens": lambda impl: fuse_tokens(TOKENS, [(1, 1)], torch.ones(4, 4), D2, D2, D2, impl=impl),
    "attend": lambda impl: attend(torch.ones(1, 2, 3, 1, 16).half(), impl=impl),
    "fba_contrastive": lambda impl: fba_contrastive(X, X, X[:, 0] > 0, X, X, 0.1, impl=impl),
    "nearest_centroid": lambda impl: nearest_centroid(X, X, impl=impl),
    "cluster_sums": lambda impl: cluster_sums(X, torch.arange(4), 4, impl=impl),
    "lloyd_step": lambda impl: lloyd_step(X, X, impl=impl),
    "kmeans": lambda impl: kmeans(X, 2, impl=impl),
    "momentum_centroid_update": lambda impl: momentum_centroid_update(X, X, torch.arange(4), 0.9, impl=impl),
    "dense_crf": lambda impl: dense_crf(PROBABILITIES, IMAGES, impl=impl),
    "foreground_mask": lambda impl: foreground_mask(torch.ones(1, 1, 2, 2), 0.7, impl=impl),
    "linear_gelu": lambda impl: linear_gelu(X16, X16, X16[0], impl=impl),
    "photometric_views": lambda impl: photometric_views(
        torch.zeros(1, 2, 2, 3), torch.ones(1, 1, 6), (0, 0, 0), (1, 1, 1), impl=impl
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_operation_refuses_what_it_cannot_run(call, monkeypatch):
    monkeypatch.setattr(dispatch, "TRITON_INTERPRETED", False)
    with pytest.raises(ValueError, match="'cuda'"):
        call("cuda")
    with pytest.raises(ValueError, match="needs CUDA tensors"):
        call("triton")
    call("torch")


def test_triton_without_such_a_form_is_named():
    with pytest.raises(NotImplementedError, match="no Triton form"):
        choose("triton", X, available=False)


@pytest.mark.parametrize("installed", [True, False])
def test_auto_is_triton_on_a_gpu_where_it_is_installed(monkeypatch, installed):
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", installed)
    monkeypatch.setattr(dispatch, "capability", lambda device: 8)
    assert choose("auto", ON_GPU, available=True) == ("triton" if installed else "torch")
    assert choose("auto", ON_GPU, available=False) == "torch"


@pytest.mark.parametrize(
    ("hip", "compiles", "chosen"), [(0, 0, "torch"), ("6.4", 0, "triton"), (0, 1, "triton")]
)
def test_auto_is_torch_on_a_gpu_whose_matrix_units_do_not_take_bfloat16(monkeypatch, hip, compiles, chosen):
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    monkeypatch.setattr(torch.version, "hip", hip or None)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiles)
    monkeypatch.setattr(dispatch, "capability", lambda device: 7)
    assert choose("auto", ON_GPU, available=True) == chosen
    assert choose("triton", ON_GPU, available=True) == "triton"


def test_auto_is_torch_on_the_cpu():
    assert choose("auto", X, available=True) == "torch"


def test_an_operation_can_have_another_choice_elsewhere():
    assert choose("auto", X, available=True, elsewhere="library") == "library"
    assert choose("library", X, available=True, elsewhere="library") == "library"
    assert choose("torch", X, available=True, elsewhere="library") == "torch"
    with pytest.raises(ValueError, match="'library'"):
        choose("cuda", X, available=True, elsewhere="library")


def test_named_triton_is_never_replaced(monkeypatch):
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", True)
    monkeypatch.setattr(dispatch, "TRITON_INTERPRETED", False)
    with pytest.raises(ValueError, match="cpu"):
        choose("triton", X, available=True)
    monkeypatch.setattr(dispatch, "TRITON_INTERPRETED", True)
    assert choose("triton", X, available=True) == "triton"


def test_tensors_on_several_devices_are_refused():
    with pytest.raises(ValueError, match="the tensors are on cpu and meta; move them to one device"):
        choose("auto", X, X, X.to("meta"), available=True)


def test_triton_missing_is_named(monkeypatch):
    monkeypatch.setattr(dispatch, "TRITON_INSTALLED", False)
    with pytest.raises(ModuleNotFoundError, match="install it"):
        choose("triton", X, available=True)


def test_kernels_import_neither_triton_nor_the_project():
    code = (
        "import sys; import kernels.aggregate, kernels.attention, kernels.crf, kernels.fba; "
        "import kernels.foreground, kernels.kmeans, kernels.linear, kernels.views; "
        "assert not {'triton', 'pydensecrf', 'hcl', 'pipelines'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_are_registered_under_one_name():
    for operation in ("aggregate", "attention", "crf", "fba", "foreground", "kmeans", "linear", "views"):
        importlib.import_module(f"kernels.{operation}.triton")
    registered = {name.partition("::")[0] for name in torch._C._dispatch_get_all_op_names()}
    assert {name for name in registered if "kernels" in name} == {"hcl_kernels"}
