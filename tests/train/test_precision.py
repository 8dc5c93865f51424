"""In what numbers layers compute, and whether that is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.train.test_loop import fresh
from yoloprune.steps.training import left_out, mixed_precision


@pytest.mark.parametrize("has", [False, True])
def test_a_gpu_computes_in_bfloat16_where_it_has_it_and_else_says_so(
    monkeypatch: pytest.MonkeyPatch, has: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or has)
    assert mixed_precision("cuda:0", asked=False) == has
    assert [mixed_precision("cpu", asked=asked) for asked in (False, True)] == [False, True]
    model, recipe = fresh()
    missing = left_out(model.graph, replace(recipe, bfloat16=has), "cuda:0")
    assert missing == ([] if has else ["this GPU has no bfloat16: layers compute in float32"])
    assert left_out(model.graph, recipe, "cpu") == []
