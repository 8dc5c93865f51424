"""Imports run one way, and only the layer table knows section types."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "yoloprune"
BOTTOM = {"errors", "artefacts", "choices", "option", "progress", "options", "run_options", "shown"}
STAGE = {*BOTTOM, "darknet", "detect"}
BELOW_STEPS = {*STAGE, "compat", "formats", "readers", "drawing", "shapes", "workspace", "prune", "train"}
MAY_IMPORT = {
    "malloc": set(),
    "errors": set(),
    "choices": set(),
    "progress": set(),
    "shown": set(),
    "option": set(),
    "options": {"choices", "option"},
    "run_options": {"choices", "option", "options"},
    "artefacts": {"errors"},
    "drawing": BOTTOM,
    "shapes": BOTTOM,
    "darknet": BOTTOM,
    "compat": {*BOTTOM, "darknet"},
    "detect": {*BOTTOM, "darknet"},
    "formats": {*BOTTOM, "darknet"},
    "readers": {*BOTTOM, "darknet", "formats"},
    "prune": STAGE,
    "train": {*STAGE, "drawing"},
    "workspace": BOTTOM,
    "steps": BELOW_STEPS,
    "report": {*BELOW_STEPS, "steps"},
    "console": {*BELOW_STEPS, "steps", "report"},
    "api": {*BELOW_STEPS, "steps", "report", "console"},
    "cli": {*BELOW_STEPS, "malloc", "steps", "report", "console"},
    "__main__": {*BELOW_STEPS, "malloc", "steps", "report", "console", "cli"},
    "__init__": {*BELOW_STEPS, "steps", "report", "console", "api"},
}
"""Room (folder or file under yoloprune/) -> the others that it may import."""
DARKNET_ORDER = (
    ("cnumbers", "cfg", "dialect", "grid", "exact", "labels", "operators", "predictions", "rounder"),
    ("options", "data"),
    ("declared",),
    ("layers",),
    ("net", "weights"),
    ("keys", "model", "mask"),
    ("alone", "fold", "network", "pretrained", "sparsity"),
)
"""Modules of darknet, where each may import those of the rows before it, and of its own row those before it."""
LAYERS_SHARED = {
    "base", "activations", "affine", "blur", "fused", "head", "norm", "reading", "specs", "tree",
}  # fmt: skip
"""What several section types need; a file of sections imports nothing else of the layer table."""
SECTION_TYPES = {
    "avgpool", "connected", "convolutional", "maxpool", "region", "reorg", "route", "scale_channels", "shortcut",
    "upsample", "yolo",
}  # fmt: skip


def imported(source: str, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What `module`, as ("yoloprune", room, ...), imports, also inside functions: paths of modules or their names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = module[: len(module) - node.level] if node.level else ()
            base = (*start, *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names)


def imported_rooms(source: str, module: tuple[str, ...]) -> Iterator[str]:
    """Rooms of yoloprune that `module` imports."""
    yield from (name[1] for name in imported(source, module) if name[0] == "yoloprune" and len(name) > 1)


def section_types_named(source: str) -> list[tuple[int, str]]:
    """Line and text of every string literal that is a section's type. Names in __all__ are modules, no types."""
    tree = ast.parse(source)
    exported = {
        id(constant)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets)
        for constant in ast.walk(node)
    }
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in exported)
    return [(node.lineno, node.value) for node in constants if node.value in SECTION_TYPES]


def files(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def module_of(file: Path) -> tuple[str, ...]:
    return file.relative_to(PACKAGE.parent).with_suffix("").parts


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_one_way(file: Path) -> None:
    room = room_of(file)
    assert room in MAY_IMPORT, f"say in MAY_IMPORT what the new room {room} may import"
    wrong = set(imported_rooms(file.read_text(), module_of(file))) - MAY_IMPORT[room] - {room, "__version__"}
    assert not wrong


def imports_within(file: Path, folder: str) -> set[str]:
    """Modules of a folder of yoloprune, or names of it, that a file imports."""
    module, start = module_of(file), ("yoloprune", *folder.split("/"))
    names = imported(file.read_text(), module)
    return {name[len(start)] for name in names if name[: len(start)] == start and len(name) > len(start)}


@pytest.mark.parametrize("file", files("darknet"), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_of_darknet_import_those_before_them(file: Path) -> None:
    order = [module for row in DARKNET_ORDER for module in row]
    own = file.relative_to(PACKAGE / "darknet").parts[0].removesuffix(".py")
    if own != "__init__":
        assert own in order, f"say in DARKNET_ORDER where the new module {own} stands"
        assert imports_within(file, "darknet") <= {*order[: order.index(own)], *({own} if own == "layers" else ())}


@pytest.mark.parametrize("file", files("darknet/layers"), ids=lambda file: file.stem)
def test_sections_know_nothing_of_each_other(file: Path) -> None:
    if file.stem != "__init__":
        assert imports_within(file, "darknet/layers") <= (LAYERS_SHARED if file.stem != "base" else set())


REBUILT = PACKAGE / "readers" / "ncnn_convert.py"
"""Another program's converter, made anew: it knows the sections that that one knows."""


@pytest.mark.parametrize(
    "file",
    [file for file in files() if file not in (REBUILT, *files("darknet/layers"), *files("compat"))],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_only_the_layer_table_knows_section_types(file: Path) -> None:
    assert section_types_named(file.read_text()) == []


def test_the_order_has_no_way_back() -> None:
    for room, below in MAY_IMPORT.items():
        for other in below:
            assert room not in MAY_IMPORT[other]
            assert MAY_IMPORT[other] <= below


def test_the_checks_see_what_they_look_for() -> None:
    source = (
        "import yoloprune.train.loop\n"
        "from yoloprune import cli\n"
        "def late():\n    from ..report import table\n    from . import plan\n"
        '"""yolo in a text"""\n'
        '__all__ = ["yolo"]\n'
        'kind == "yolo"\n'
    )
    rooms = set(imported_rooms(source, ("yoloprune", "prune", "slim")))
    assert rooms == {"train", "cli", "report", "prune"}
    assert section_types_named(source) == [(8, "yolo")]
