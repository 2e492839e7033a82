"""A description of ANYmal C that is fit for simulation, from the one that its maker publishes."""

from __future__ import annotations

import copy
import functools
import tempfile
import warnings
import xml.etree.ElementTree as ET
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from bmd_pipeline.errors import TaskError

# ---- Where the robot's description comes from: the wheel `example-robot-data`, a folder of files ----

WHEEL = "example-robot-data"
_URDF = "cmeel.prefix/share/example-robot-data/robots/anymal_c_simple_description/urdf/anymal.urdf"


def find_urdf() -> Path:
    """The description of ANYmal C (Copyright ANYbotics, BSD-3-Clause).

    Raises:
        PackageNotFoundError: the wheel is not installed; a `ModuleNotFoundError` that names it.
    """
    return Path(str(distribution(WHEEL).locate_file(_URDF)))


# ---- A description of ANYmal C that is fit for simulation, from the one that its maker publishes ----
#
# Most of the published links are parts bolted to another: shells, cameras, motors, frames without mass. Some inertias
# are not those of any body, which SAPIEN refuses, and the base has collision shapes but no inertial, for which SAPIEN
# would make up a mass beside that of the parts. Here parts are lumped into what carries them: masses and inertias come
# out right, and few links remain. Visuals are the collision shapes, so that there are no meshes to load.

FEET = ("LF_FOOT", "RF_FOOT", "LH_FOOT", "RH_FOOT")
"""Links that stay links though they are fixed to the shank: they have a friction of their own."""
_AXES = "xyz"
_DIGITS = 9


def lump_fixed_links(description: str, keep: tuple[str, ...] = FEET) -> str:
    """Lumps links that are fixed to another link into that one.

    Args:
        description: URDF text.
        keep: fixed links that remain.

    Returns:
        URDF text with the same moving parts, masses, inertias and collision shapes.
    """
    robot = ET.fromstring(description)
    bodies = {str(link.get("name")): _Body(link) for link in robot.findall("link")}
    lumped = ET.Element("robot", robot.attrib)
    carrier = {name: (name, np.eye(4)) for name in bodies}  # which remaining link carries it, and where
    joints = []
    for joint in _from_the_root(robot.findall("joint")):
        parent, place = carrier[str(_find(joint, "parent").get("link"))]
        place = place @ _read_pose(joint.find("origin"))
        if joint.get("type") == "fixed" and _child(joint) not in keep:
            carrier[_child(joint)] = parent, place
            bodies[parent].absorb(bodies.pop(_child(joint)), place)
            continue
        _find(joint, "parent").set("link", parent)
        _write_pose(joint, place)
        joints.append(joint)
    lumped.extend([body.describe(name) for name, body in bodies.items()])
    lumped.extend(joints)
    return ET.tostring(lumped, encoding="unicode")


@functools.cache
def write_urdf() -> str:
    """Path of the lumped description, a file that lives as long as this process."""
    folder = _scratch()
    path = Path(folder.name) / "anymal_c.urdf"
    path.write_text(lump_fixed_links(find_urdf().read_text()))
    return str(path)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bmd-anymal-")


class _Body:
    """Mass, inertia and shapes of a link, in its frame. The inertia is the one about the frame's origin."""

    def __init__(self, link: ET.Element) -> None:
        self.mass, self.moment, self.inertia = 0.0, np.zeros(3), np.zeros((3, 3))
        self.shapes = [copy.deepcopy(shape) for shape in link.findall("collision")]
        inertial = link.find("inertial")
        if inertial is not None:
            pose = _read_pose(inertial.find("origin"))
            mass = float(str(_find(inertial, "mass").get("value")))
            values = {key: float(value) for key, value in _find(inertial, "inertia").attrib.items()}
            about_middle = np.array([[values["i" + min(a, b) + max(a, b)] for b in _AXES] for a in _AXES])
            self._add(mass, pose[:3, 3], pose[:3, :3] @ about_middle @ pose[:3, :3].T)

    def absorb(self, part: _Body, place: NDArray[np.float64]) -> None:
        """Adds what is fixed to this body at place (4, 4)."""
        if part.mass > 0.0:
            middle = part.moment / part.mass
            about_middle = part.inertia - part.mass * _steiner(middle)
            self._add(part.mass, (place @ [*middle, 1.0])[:3], place[:3, :3] @ about_middle @ place[:3, :3].T)
        for shape in part.shapes:
            _write_pose(shape, place @ _read_pose(shape.find("origin")))
            self.shapes.append(shape)

    def describe(self, name: str) -> ET.Element:
        """The link of that name."""
        link = ET.Element("link", name=name)
        middle = self.moment / self.mass
        inertia = self.inertia - self.mass * _steiner(middle)
        inertial = ET.SubElement(link, "inertial")
        ET.SubElement(inertial, "origin", xyz=_format(middle), rpy="0 0 0")
        ET.SubElement(inertial, "mass", value=_format([self.mass]))
        pairs = [(i, j) for i in range(3) for j in range(i, 3)]
        ET.SubElement(inertial, "inertia", {f"i{_AXES[i]}{_AXES[j]}": _format([inertia[i, j]]) for i, j in pairs})
        for shape in self.shapes:
            visual = copy.deepcopy(shape)
            visual.tag = "visual"
            link.extend((visual, shape))
        return link

    def _add(self, mass: float, middle: NDArray[np.float64], about_middle: NDArray[np.float64]) -> None:
        self.mass += mass
        self.moment = self.moment + mass * middle
        self.inertia = self.inertia + about_middle + mass * _steiner(middle)


def _steiner(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inertia (3, 3) of a point of mass 1 at an offset (3,)."""
    return np.asarray(offset @ offset * np.eye(3) - np.outer(offset, offset))


def _from_the_root(joints: list[ET.Element]) -> list[ET.Element]:
    """Joints in an order in which the parent's comes before the child's."""
    by_parent: dict[str, list[ET.Element]] = {}
    for joint in joints:
        by_parent.setdefault(str(_find(joint, "parent").get("link")), []).append(joint)
    (root,) = set(by_parent) - {_child(joint) for joint in joints}
    ordered, open_links = [], [root]
    for link in open_links:  # grows while it is walked
        for joint in by_parent.get(link, ()):
            ordered.append(joint)
            open_links.append(_child(joint))
    return ordered


def _child(joint: ET.Element) -> str:
    return str(_find(joint, "child").get("link"))


def _find(element: ET.Element, tag: str) -> ET.Element:
    found = element.find(tag)
    if found is None:
        raise TaskError(f"robot description: <{element.tag} {element.attrib}> has no <{tag}>")
    return found


def _read_pose(origin: ET.Element | None) -> NDArray[np.float64]:
    """Transformation (4, 4) of an `origin` element; rpy are turns about the fixed axes x, y, z."""
    pose = np.eye(4)
    if origin is not None:
        pose[:3, 3] = [float(value) for value in origin.get("xyz", "0 0 0").split()]
        pose[:3, :3] = Rotation.from_euler("xyz", [float(v) for v in origin.get("rpy", "0 0 0").split()]).as_matrix()
    return pose


def _write_pose(element: ET.Element, pose: NDArray[np.float64]) -> None:
    for origin in element.findall("origin"):
        element.remove(origin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at a pitch of 90 degrees, any of the equivalent angles will do
        turns = Rotation.from_matrix(pose[:3, :3]).as_euler("xyz")
    ET.SubElement(element, "origin", xyz=_format(pose[:3, 3]), rpy=_format(turns))


def _format(values: NDArray[np.float64] | list[float]) -> str:
    return " ".join(f"{value:.{_DIGITS}g}" for value in values)
