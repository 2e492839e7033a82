from pathlib import Path

from bmd_pipeline.io.layout import Layout


def test_documented_paths() -> None:
    layout = Layout()
    assert str(layout.demos("PushT")) == "data/PushT/demos.zarr"
    assert str(layout.demos_manifest("PushT")) == "data/PushT/demos.manifest.json"
    assert str(layout.policy("PushT")) == "results/PushT/policy"
    assert str(layout.modes("PushT", 3)) == "results/PushT/modes/seed3"
    assert str(layout.finetuned("PushT", "dsrl-bmd", 0)) == "results/PushT/dsrl-bmd/seed0"
    assert str(layout.evaluation("PushT", "pretrained", 1)) == "results/PushT/pretrained/seed1/eval.json"
    assert str(layout.summary("PushT")) == "results/PushT/eval.json"


def test_state_is_inside_the_output_it_belongs_to() -> None:
    layout = Layout(Path("elsewhere"))
    output = layout.policy("PushT")
    assert Layout.state(output) == Path("elsewhere/results/PushT/policy/checkpoints")
