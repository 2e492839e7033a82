import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bmd_pipeline.errors import ArtifactError
from bmd_pipeline.io.progress import TrainingState, add_prefix, pack_optimizer, take_prefix, unpack_optimizer


def test_saved_progress_comes_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    with TrainingState(tmp_path / "s", "hash") as state:
        assert state.load() is None
        state.save({"w": torch.zeros(3)}, {"step": 1})
        state.save({"w": torch.ones(3), "g": generator.get_state()}, {"step": 2, "nested": {"a": [1.5]}})
    expected = torch.rand(5, generator=generator)
    with TrainingState(tmp_path / "s", "hash") as state:
        loaded = state.load()
        assert loaded is not None
        tensors, values = loaded
        assert values == {"step": 2, "nested": {"a": [1.5]}}
        assert torch.equal(tensors["w"], torch.ones(3))
        other = torch.Generator()
        other.set_state(tensors["g"])
        assert torch.equal(torch.rand(5, generator=other), expected)


def test_progress_of_another_config_is_ignored(tmp_path: Path) -> None:
    with TrainingState(tmp_path, "one") as state:
        state.save({"w": torch.zeros(3)}, {"step": 1})
    with TrainingState(tmp_path, "two") as state:
        assert state.load() is None


def test_second_writer_is_refused(tmp_path: Path) -> None:
    with TrainingState(tmp_path, "hash"), pytest.raises(ArtifactError, match="another job is writing"):
        TrainingState(tmp_path, "hash")


def test_discard_removes_everything_and_frees_the_lock(tmp_path: Path) -> None:
    state = TrainingState(tmp_path / "s", "hash")
    state.save({"w": torch.zeros(3)}, {"step": 1})
    state.discard()
    assert not (tmp_path / "s").exists()
    TrainingState(tmp_path / "s", "hash").release()


def test_progress_whose_metadata_are_no_object_is_damaged(tmp_path: Path) -> None:
    with TrainingState(tmp_path, "hash") as state:
        save_file({"w": torch.zeros(3)}, state.path, {"metadata": "[]"})
        with pytest.raises(ArtifactError, match="to start this stage over"):
            state.load()


def test_discard_leaves_what_is_somebodys(tmp_path: Path) -> None:
    state = TrainingState(tmp_path / "s", "hash")
    state.save({"w": torch.zeros(3)}, {"step": 1})
    for name in ("epoch100.ckpt", "metrics.jsonl"):
        (tmp_path / "s" / name).write_text("")
    state.discard()
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["epoch100.ckpt"]


def test_a_flipped_bit_is_never_trained_on(tmp_path: Path) -> None:
    with TrainingState(tmp_path, "hash") as state:
        state.save({"w": torch.zeros(20)}, {"step": 1})
        content = state.path.read_bytes()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1
            state.path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match="to start this stage over") as caught:
                state.load()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_optimizer_goes_on_bit_for_bit(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 3, generator=generator)).square().mean().backward()
            optimizer.step()

    model = nn.Linear(3, 2)
    optimizer = make(model.parameters())
    train(model, optimizer, 3, seed=0)
    resumed = copy.deepcopy(model)
    with TrainingState(tmp_path, "hash") as state:
        tensors, values = pack_optimizer(optimizer)
        state.save(add_prefix("optimizer", tensors), {"optimizer": values})
        loaded = state.load()
    assert loaded is not None
    second = make(resumed.parameters())
    unpack_optimizer(second, take_prefix("optimizer", loaded[0]), loaded[1]["optimizer"])
    train(model, optimizer, 3, seed=1)
    train(resumed, second, 3, seed=1)
    assert torch.equal(model.weight, resumed.weight)
    assert torch.equal(model.bias, resumed.bias)


def test_prefixes_keep_groups_apart() -> None:
    both = {**add_prefix("a", {"x": torch.zeros(1)}), **add_prefix("ab", {"x": torch.ones(1)})}
    assert torch.equal(take_prefix("a", both)["x"], torch.zeros(1))
    assert take_prefix("ab", both).keys() == {"x"}
