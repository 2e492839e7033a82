"""The robot's description after lumping."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from bmd_pipeline.errors import TaskError
from bmd_pipeline.tasks import registry
from bmd_pipeline.tasks.anymal.maniskill import FEET, find_urdf, lump_fixed_links
from tests.tasks.anymal.extra import needs_wheel

BOX = '<collision><origin xyz="{}"/><geometry><box size="1 1 1"/></geometry></collision>'


def _link(name: str, mass: float, at: str, inertia: float, shape_at: str = "") -> str:
    values = {f"i{a}{b}": inertia if a == b else 0.0 for a, b in ("xx", "xy", "xz", "yy", "yz", "zz")}
    written = " ".join(f'{key}="{value}"' for key, value in values.items())
    inertial = f'<inertial><origin xyz="{at}"/><mass value="{mass}"/><inertia {written}/></inertial>'
    return f'<link name="{name}">{inertial}{BOX.format(shape_at) if shape_at else ""}</link>'


def _joint(name: str, kind: str, parent: str, child: str, origin: str) -> str:
    ends = f'<parent link="{parent}"/><child link="{child}"/>'
    return f'<joint name="{name}" type="{kind}">{ends}<origin {origin}/></joint>'


def _inertia(link: ET.Element) -> np.ndarray:
    found = link.find("inertial/inertia")
    assert found is not None
    return np.array([[float(found.attrib["i" + min(a, b) + max(a, b)]) for b in "xyz"] for a in "xyz"])


def test_lumping_by_hand() -> None:
    """Two parts of 1 kg, one metre to either side, the second turned by a quarter: 2 kg in between."""
    text = "<robot name='r'>" + _link("base", 1, "-1 0 0", 0.5, "0 0 0") + _link("part", 1, "0 1 0", 0.5, "0 2 0")
    text += _link("leg", 3, "0 0 0", 0.1)
    text += _joint("hinge", "revolute", "part", "leg", 'xyz="0 3 0"')
    text += _joint("bolt", "fixed", "base", "part", 'xyz="0 0 0" rpy="0 0 -1.5707963268"') + "</robot>"
    robot = ET.fromstring(lump_fixed_links(text))
    base, leg = robot.findall("link")
    assert (base.get("name"), leg.get("name")) == ("base", "leg")
    np.testing.assert_allclose(float(base.find("inertial/mass").attrib["value"]), 2.0)  # type: ignore[union-attr]
    np.testing.assert_allclose(_xyz(base.find("inertial/origin")), [0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(_inertia(base), np.diag([1.0, 3.0, 3.0]), atol=1e-6)  # 2 x 0.5, and 2 x 1 kg at 1 m
    np.testing.assert_allclose(
        [_xyz(shape.find("origin")) for shape in base.findall("collision")], [[0, 0, 0], [2, 0, 0]], atol=1e-6
    )
    (hinge,) = robot.findall("joint")
    assert hinge.find("parent").attrib["link"] == "base"  # type: ignore[union-attr]
    np.testing.assert_allclose(_xyz(hinge.find("origin")), [3, 0, 0], atol=1e-6)


def _xyz(origin: ET.Element | None) -> list[float]:
    assert origin is not None
    return [float(value) for value in origin.attrib["xyz"].split()]


@needs_wheel
def test_the_robot_keeps_its_mass_and_gets_real_inertias() -> None:
    published = ET.fromstring(find_urdf().read_text())
    lumped = ET.fromstring(lump_fixed_links(find_urdf().read_text()))
    links = lumped.findall("link")
    assert len(links) == 1 + 4 * 3 + len(FEET)
    masses = [sum(float(m.attrib["value"]) for m in robot.iter("mass")) for robot in (published, lumped)]
    assert masses[1] == pytest.approx(masses[0], abs=1e-4)
    assert masses[1] == pytest.approx(52.13, abs=0.01)
    assert float(links[0].find("inertial/mass").attrib["value"]) == pytest.approx(26.37, abs=0.01)  # type: ignore[union-attr]
    for link in links:
        a, b, c = np.linalg.eigvalsh(_inertia(link))
        assert a > 0
        assert a + b >= c
    shapes = [len(list(robot.iter("collision"))) for robot in (published, lumped)]
    assert shapes[0] == shapes[1]
    assert not list(lumped.iter("mesh"))


def test_without_the_wheel_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(registry, "distribution", refuse)
    with pytest.raises(TaskError) as raised:
        registry.make_env("Anymal", {}, 1)
    assert str(raised.value) == "task Anymal needs example-robot-data: pip install 'bmd-pipeline[anymal]'"
