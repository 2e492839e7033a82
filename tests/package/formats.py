"""Imports what other projects' own libraries write, and has them read what we export.

Each library is installed into a folder of its own in .formats/, without what it depends on but what is named here: that
takes a minute, once, and no torch. Demonstrations are a few of AvoidPoint's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from bmd_pipeline.demos.store import load_demos

from .wheel import ROOT, pip_install

LIBRARY = ROOT / ".formats"
TASK = "AvoidPoint"
GIVEN = "given.npz"
_HUB = ("datasets==4.4.2", "huggingface_hub==0.35.3", "dill==0.4.0", "multiprocess==0.70.18", "av==15.1.0")
_LEROBOT = (*_HUB, "jsonlines==4.0.0", "draccus==0.10.0", "deepdiff==9.1.0", "orderly-set==5.5.0", "mergedeep==1.3.4")
_LEROBOT += ("pyyaml-include==2.2", "typing-inspect==0.9.0", "accelerate==1.15.0", "einops==0.8.2", "aiohttp==3.14.5")
_LEROBOT += ("aiosignal==1.4.0", "frozenlist==1.8.0", "multidict==7.2.1", "yarl==1.25.1", "propcache==0.5.4")
_LEROBOT += ("aiohappyeyeballs==2.7.1",)
LIBRARIES = {
    "LeRobot v3": ("lerobot==0.4.4", *_LEROBOT),
    "LeRobot v2.1": ("lerobot==0.3.3", *_LEROBOT),
    "Minari": ("minari==0.5.4",),
    "robomimic": ("robomimic==0.3.0", "termcolor==3.3.0", "tensorboardX==2.6.5"),
    "zarr v2": ("zarr==2.18.7", "numcodecs==0.15.1", "asciitree==0.3.3", "fasteners==0.20", "deprecated==1.2.18"),
    "ManiSkill": (),  # in the lock
}
TORCHVISION = {
    "__init__.py": "from torchvision import transforms\n",
    "transforms/__init__.py": "from torchvision.transforms import v2\nToTensor = None\n",
    "transforms/v2.py": "class Transform: pass\nfunctional = None\n",
}
"""A stand-in: LeRobot imports it for pictures, of which there are none here, and it must be built for its torch."""

WRITE = {
    "LeRobot v3": """
from lerobot.datasets.lerobot_dataset import LeRobotDataset
def feature(size):
    return {"dtype": "float32", "shape": (size,), "names": None}
features = {"observation.state": feature(obs.shape[1]), "action": feature(action.shape[1])}
made = LeRobotDataset.create("us/ours", fps=10, features=features, root=out, use_videos=False)
for a, b in episodes:
    for t in range(a, b):
        made.add_frame({"observation.state": obs[t], "action": action[t], "task": "avoid"})
    made.save_episode()
if hasattr(made, "finalize"):
    made.finalize()
""",
    "Minari": """
import os
os.environ["MINARI_DATASETS_PATH"] = str(out)
import gymnasium, minari
from minari.data_collector import EpisodeBuffer
box = gymnasium.spaces.Box
buffers = [
    EpisodeBuffer(
        id=i, observations=np.concatenate([obs[a:b], obs[b - 1 : b]]), actions=action[a:b], rewards=[0.0] * (b - a),
        terminations=[False] * (b - a), truncations=[False] * (b - a), infos={},
    )
    for i, (a, b) in enumerate(episodes)
]
minari.create_dataset_from_buffers(
    "avoid-v0", buffers, observation_space=box(-np.inf, np.inf, obs.shape[1:], np.float32),
    action_space=box(-1, 1, action.shape[1:], np.float32), algorithm_name="expert", author="us", author_email="a@b.c",
    code_permalink="none", description="none", eval_env=None,
)
""",
    "robomimic": """
import json, h5py
with h5py.File(out, "w") as file:  # robomimic has no writer: its scripts do this
    data = file.create_group("data")
    data.attrs.update(total=len(obs), env_args=json.dumps({"env_name": "avoid", "type": 1, "env_kwargs": {}}))
    for i, (a, b) in enumerate(episodes):
        demo = data.create_group(f"demo_{i}")
        demo.attrs["num_samples"] = b - a
        demo["actions"] = action[a:b]
        demo["obs/position"], demo["obs/rest"] = obs[a:b, :2], obs[a:b, 2:]
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": ["position", "rest"]}})
read = SequenceDataset(str(out), obs_keys=("position", "rest"), dataset_keys=("actions",))
assert len(read) == len(obs), len(read)
""",
    "zarr v2": """
import zarr, numcodecs
assert zarr.__version__.startswith("2."), zarr.__version__
store = zarr.ZipStore(str(out), mode="w") if out.suffix == ".zip" else zarr.DirectoryStore(str(out))
root = zarr.group(store)  # as diffusion policy's ReplayBuffer
pack = numcodecs.Blosc(cname="zstd", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)
for name, values in (("data/state", obs), ("data/action", action)):
    root.create_dataset(name, data=values, chunks=(161, values.shape[1]), compressor=pack)
root.create_dataset("data/img", data=np.zeros((len(obs), 8, 8, 3), np.uint8), compressor=pack)
root.create_dataset("meta/episode_ends", data=np.array([b for a, b in episodes]), compressor=None)
store.close()
""",
    "ManiSkill": """
import gymnasium, mani_skill.envs
from bmd_pipeline.sim.backend import enable_headless
enable_headless()
from mani_skill.utils.wrappers.record import RecordEpisode
env = gymnasium.make("PickCube-v1", obs_mode="state", render_mode=None, render_backend="none")
env = RecordEpisode(env, str(out), trajectory_name="trajectory", save_video=False, record_reward=False)
rng, seen, done = np.random.default_rng(0), [], []
for i in range(3):
    state, _ = env.reset(seed=i)
    for t in range(5 + i):
        seen.append(np.asarray(state).reshape(-1))
        done.append(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32).reshape(-1))
        state = env.step(done[-1])[0]
    env.flush_trajectory()
env.close()
np.savez(out / "seen.npz", obs=np.array(seen), action=np.array(done), ends=np.cumsum([5, 6, 7]))
""",
}
WRITE["LeRobot v2.1"] = WRITE["LeRobot v3"].replace(', "task": "avoid"})', '}, "avoid")')
START = """
import sys
from pathlib import Path
import numpy as np
given, out = np.load(sys.argv[1]), Path(sys.argv[2])
obs, action, ends = given["obs"], given["action"], given["ends"].tolist()
episodes = list(zip([0, *ends[:-1]], ends))
"""
READ = {
    "LeRobot v3": """
from lerobot.datasets.lerobot_dataset import LeRobotDataset
made = LeRobotDataset("us/ours", root=out)
assert made.num_episodes == len(ends) and len(made) == len(obs)
rows = [made[i] for i in range(len(made))]
assert np.array_equal(np.stack([row["observation.state"] for row in rows]), obs)
assert np.array_equal(np.stack([row["action"] for row in rows]), action)
assert [int(row["episode_index"]) for row in rows] == np.repeat(range(len(ends)), np.diff([0, *ends])).tolist()
assert rows[0]["task"] == "AvoidPoint", rows[0]["task"]
assert np.allclose(made.meta.stats["action"]["max"], action.max(axis=0))
""",
    "zarr v2": """
import zarr
root = zarr.open(str(out), mode="r")
assert zarr.__version__.startswith("2.")
assert np.array_equal(root["data/obs"][:], obs) and np.array_equal(root["data/action"][:], action)
assert root["meta/episode_ends"][:].tolist() == ends
""",
}
OPTIONS = {"robomimic": ("--obs", "position,rest"), "ManiSkill": ("--keep-failures",)}
TASKS = {"ManiSkill": "PickCube"}
FEW_STEPS = [word for name in ("iterations=20", "selection.episodes=0") for word in ("--set", f"pretrain.{name}")]
PICK_CUBE = """
extends: Gym
task:
  env: {id: PickCube-v1, success: info.success, track: [obs.extra.tcp_pose.0, obs.extra.tcp_pose.1]}
"""
WRITTEN = {"zarr v2": ("mine.zarr", "mine.zarr.zip"), "robomimic": ("mine.hdf5",)}
IMPORTED = {"Minari": "avoid-v0", "ManiSkill": "trajectory.h5"}
EXPORTED = {"LeRobot v3": "lerobot", "zarr v2": "zarr"}


def install(library: str) -> str:
    """Puts a library into its folder, unless it is there; returns why it can't be had, if so."""
    folder, packages = LIBRARY / library, LIBRARIES[library]
    ready = folder / "ready.txt"
    if ready.is_file() and ready.read_text() == " ".join(packages):
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in TORCHVISION.items():
        (folder / "torchvision" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "torchvision" / name).write_text(text)
    if packages and (failed := pip_install("--no-deps", "--target", str(folder), *packages)):
        return failed
    ready.write_text(" ".join(packages))
    return ""


def make_demonstrations(folder: Path) -> None:
    """Collects what the libraries write."""
    (folder / "config" / "tasks").mkdir(parents=True)
    (folder / "config" / "tasks" / f"{TASKS['ManiSkill']}.yaml").write_text(PICK_CUBE)
    pipeline(folder, "collect", "--output", "ours.zarr")
    ours = load_demos(folder / "ours.zarr")
    np.savez(folder / GIVEN, obs=ours.obs, action=ours.action, ends=ours.episode_ends)


def try_out(library: str, folder: Path) -> None:
    """Has a library write demonstrations for us, and read ours."""
    for what in WRITTEN.get(library, ("mine",)):
        check_import(folder, library, what)
    if library in EXPORTED:
        theirs = f"theirs of {library}"
        pipeline(folder, "export-demos", "--demos", "ours.zarr", "--to", EXPORTED[library], "--output", theirs)
        script(folder, library, READ[library], folder / theirs)
        print(f"{library}: reads what we export", flush=True)


def check_import(folder: Path, library: str, what: str) -> None:
    """Has a library write the demonstrations, imports them, and compares."""
    place = folder / f"{library} wrote" / what
    place.parent.mkdir(exist_ok=True)
    script(folder, library, WRITE[library], place)
    source, output = place / IMPORTED.get(library, ""), folder / f"{library} {what}" / "demos.zarr"
    task = TASKS.get(library, TASK)
    pipeline(folder, "import-demos", str(source), "--output", str(output), *OPTIONS.get(library, ()), task=task)
    found = load_demos(output)
    if library == "ManiSkill":  # its own episodes, and its own task's
        seen = np.load(place / "seen.npz")
        given = {"obs": seen["obs"], "action": seen["action"], "episode_ends": seen["ends"]}
    else:
        ours = load_demos(folder / "ours.zarr")
        given = {name: getattr(ours, name) for name in ("obs", "action", "episode_ends")}
    for name, values in given.items():
        assert np.array_equal(getattr(found, name), values), f"{library}: {name}"
    policy = str(output.with_name("policy"))
    pipeline(folder, "pretrain", "--demos", str(output), "--output", policy, *FEW_STEPS, task=task)
    print(f"{library}: what it writes is read, and a policy comes of it ({what})", flush=True)


def pipeline(folder: Path, command: str, *words: str, task: str = TASK) -> str:
    """Runs `bmd-pipeline`; returns what it printed."""
    options = ["--task", task, "--preset", "smoke", "--quiet", "--root", str(folder)]
    return run(["bmd-pipeline", command, *words, *options], folder)


def script(folder: Path, library: str, text: str, place: Path) -> None:
    """Runs a script with a library."""
    run(["python", "-c", START + text, GIVEN, str(place)], folder, LIBRARY / library)


def run(command: list[str], folder: Path, *paths: Path) -> str:
    """Runs a command in a folder; ends the check if it fails."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(folder / "hub")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {command[-2:]} ended with {done.returncode}: {done.stderr[-3000:]}")
    return done.stdout
