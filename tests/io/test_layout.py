import json
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


def test_a_run_with_a_name_is_in_folders_of_its_own(tmp_path: Path) -> None:
    layout = Layout(run="smoke")
    assert str(layout.demos("PushT-base0")) == "data/PushT-base0-smoke/demos.zarr"
    assert str(layout.evaluation("PushT", "dppo", 1)) == "results/PushT-smoke/dppo/seed1/eval.json"
    assert str(layout.logs("PushT")) == "logs/PushT-smoke"
    assert str(layout.overview()) == "results/summary-smoke.html"


def test_tasks_are_told_from_names_of_runs_by_what_their_evaluation_says(tmp_path: Path) -> None:
    for folder, task in (("Lift", "Lift"), ("Lift-smoke", "Lift"), ("My-smoke", "My-smoke"), ("My-mine", "My")):
        path = tmp_path / "results" / folder / "eval.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"task": task}))
    assert Layout(tmp_path).list_tasks() == ["Lift", "My-smoke"]
    assert Layout(tmp_path, "smoke").list_tasks() == ["Lift"]
    assert Layout(tmp_path, "mine").list_tasks() == ["My"]


def test_state_is_inside_the_output_it_belongs_to() -> None:
    layout = Layout(Path("elsewhere"))
    output = layout.policy("PushT")
    assert Layout.state(output) == Path("elsewhere/results/PushT/policy/checkpoints")
