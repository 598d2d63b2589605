"""The rules of the house, read from the syntax trees of the packages: who may import whom, and what nobody may do."""

from __future__ import annotations

import ast
import collections
import functools
import graphlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("jepa_mpc", "encoders", "world_model", "planners", "envs", "trajectories")

# Which packages each package may import, beside itself.
ARROWS = {
    "jepa_mpc": set(),
    "encoders": {"jepa_mpc"},
    "planners": {"jepa_mpc"},
    "envs": {"jepa_mpc"},
    "trajectories": {"jepa_mpc"},
    "world_model": {"jepa_mpc", "encoders"},
    "face": set(PACKAGES),  # the part of jepa_mpc that looks up, at use
    "experiments": {*PACKAGES, "experiments"},
}
FACE = ("jepa_mpc/face/", "jepa_mpc/cli.py", "jepa_mpc/gym.py")
SHELVES = {*PACKAGES, "experiments"} - {"jepa_mpc"}

# Where each package that is not Python's own may be imported: folders (and all below) or single files.
EVERYWHERE = (*PACKAGES, "experiments")
AT_HOME = {
    "torch": EVERYWHERE,
    "numpy": EVERYWHERE,
    "safetensors": ("jepa_mpc/weights.py", "encoders/adapters", "world_model/adapters"),
    "einops": ("encoders", "world_model"),
    "scipy": ("planners", "envs", "trajectories", "jepa_mpc/reporting", "experiments"),
    "PIL": ("envs", "trajectories", "experiments", "jepa_mpc/reporting", "jepa_mpc/face"),
    "mujoco": ("envs",),
    "dm_control": ("envs",),
    "mujoco_warp": ("envs",),
    "warp": ("envs",),
    "gymnasium": ("envs", "trajectories"),
    "imageio": ("jepa_mpc/reporting/video.py",),
    "imageio_ffmpeg": ("jepa_mpc/reporting/video.py",),
    "transformers": ("encoders/adapters", "world_model/adapters"),
    "huggingface_hub": ("jepa_mpc/hub.py", "encoders/adapters", "world_model/adapters"),
    "hydra": ("experiments", "jepa_mpc/face/commands.py", "jepa_mpc/face/command_line.py"),
    "yaml": ("jepa_mpc/face",),
    "rerun": ("jepa_mpc/face/viewing.py",),
    "websockets": ("jepa_mpc/serving",),
    "msgpack": ("jepa_mpc/serving",),
    "omegaconf": ("experiments", "jepa_mpc/face"),
    "matplotlib": ("experiments", "jepa_mpc/reporting"),
    "wandb": ("jepa_mpc/face/training/recorders.py",),
    "tqdm": ("experiments", "trajectories", "jepa_mpc/face"),
    "rich": ("experiments",),
    "h5py": ("trajectories/formats",),
    "pyarrow": ("trajectories/formats",),
    "av": ("trajectories/formats",),
    "minari": ("trajectories/formats",),
    "mcap": ("trajectories/formats",),
    "mcap_ros2": ("trajectories/formats",),
    "zstandard": ("trajectories/formats",),
    "lz4": ("trajectories/formats",),
}

# Heavy or optional: imported inside the function that needs them, so that everything else runs without.
AT_USE = {
    *("h5py", "pyarrow", "av", "minari", "mcap", "mcap_ros2"),
    *("mujoco_warp", "warp", "transformers", "huggingface_hub"),
    *("websockets", "msgpack", "rerun"),
}

UNSAFE_CALLS = {
    *("eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "dill.load", "joblib.load", "torch.hub.load"),
}
UNSAFE_ARGUMENTS = {("weights_only", False), ("allow_pickle", True)}
SEEDED_NUMPY = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox", "BitGenerator"}
GLOBAL_SEEDS = {"manual_seed", "seed", "initial_seed", "set_rng_state", "get_rng_state"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}

CROWDED = 20  # files in one room

Offence = tuple[int, str]
Rule = Callable[[ast.Module, str], Iterator[Offence]]


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions too; of a package's own modules, if it is ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            names = [f"{name}.{alias.name}" for alias in node.names] if name == "jepa_mpc" else [name]
            yield from ((node.lineno, full) for full in names)


def shelf(name: str) -> str:
    """The package that an import leads to: `envs` for `jepa_mpc.envs.reach`, `jepa_mpc` for `jepa_mpc.types`."""
    top, _, inner = name.partition(".")
    within = inner.split(".")[0]
    return within if top == "jepa_mpc" and within in SHELVES else top


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call whose target is a plain dotted name, e.g. `np.random.rand`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node, ast.unparse(node.func)


def wrong_arrow(tree: ast.Module, path: str) -> Iterator[Offence]:
    package = "face" if path.startswith(FACE) else path.split("/")[0]
    for line, name in imports(tree):
        top = shelf(name)
        if name.startswith("."):
            yield line, f"imports {name} relatively: name the package"
        elif name.split(".")[0] in SHELVES:
            yield line, f"imports {name}: write jepa_mpc.{name}, an installed package knows no other name"
        elif top == "tests" or (top == "experiments" and package != "experiments"):
            yield line, f"imports {name}: no package may look up to {top}"
        elif top in PACKAGES and top != package and top not in ARROWS[package]:
            allowed = ", ".join(sorted(ARROWS[package])) or "no other package"
            yield line, f"imports {name}: {package} may import {allowed}"


def stranger(tree: ast.Module, path: str) -> Iterator[Offence]:
    for line, name in imports(tree):
        top = name.split(".")[0]
        if not top or top in sys.stdlib_module_names or top in ("jepa_mpc", "_path", "tests"):
            continue
        homes = AT_HOME.get(top)
        if homes is None:
            yield line, f"imports {name}, which has no home in AT_HOME"
        elif not any(path == home or path.startswith(f"{home}/") for home in homes):
            yield line, f"imports {name}: it lives in {', '.join(homes)} only"


def hasty_import(tree: ast.Module, path: str) -> Iterator[Offence]:
    for node in tree.body:
        for line, name in imports(node) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if name.split(".")[0] in AT_USE:
                yield line, f"imports {name} at the top: import it in the function that needs it"


def printing(tree: ast.Module, path: str) -> Iterator[Offence]:
    for call, name in calls(tree):
        if name == "print" and path != "jepa_mpc/cli.py":
            yield call.lineno, "prints: use logging.getLogger(__name__)"


def broad_except(tree: ast.Module, path: str) -> Iterator[Offence]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and not _hands_on(node):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in caught):
                yield node.lineno, "catches everything: name the errors that are expected"


def _hands_on(node: ast.ExceptHandler) -> bool:
    """Whether the error goes on: raised again after tidying up, or given to whoever waits for a future."""
    last = ast.unparse(node.body[-1])
    return last == "raise" or last == f"future.set_exception({node.name})"


def unsafe_loading(tree: ast.Module, path: str) -> Iterator[Offence]:
    for call, name in calls(tree):
        if name in UNSAFE_CALLS:
            yield call.lineno, f"calls {name}, which can run code out of a file"
        for keyword in call.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if (keyword.arg, value) in UNSAFE_ARGUMENTS:
                yield call.lineno, f"passes {keyword.arg}={value}, which can run code out of a file"
            if name.endswith("load_state_dict") and (keyword.arg, value) == ("strict", False):
                yield call.lineno, "loads weights with strict=False: a wrong name would load nothing and run"


def global_randomness(tree: ast.Module, path: str) -> Iterator[Offence]:
    for line, name in imports(tree):
        if name == "random":
            yield line, "imports random: take a generator as an argument"
    for call, name in calls(tree):
        *scope, function = name.split(".")
        if scope in (["np", "random"], ["numpy", "random"]) and function not in SEEDED_NUMPY:
            yield call.lineno, f"calls {name}, which draws from numpy's global stream"
        of_torch = scope[:1] == ["torch"] and "(" not in name
        if of_torch and function in GLOBAL_SEEDS and not any(call.lineno in block for block in _lent_streams(tree)):
            yield call.lineno, f"calls {name}, which touches torch's global stream"
        if scope == ["torch"] and function in TORCH_DRAWS and not any(k.arg == "generator" for k in call.keywords):
            yield call.lineno, f"calls {name} without generator="


def _lent_streams(tree: ast.Module) -> list[range]:
    """Lines where `torch.random.fork_rng` holds the global stream and puts it back (dropout knows no other)."""
    return [
        range(node.lineno, (node.end_lineno or node.lineno) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(ast.unparse(item.context_expr).startswith("torch.random.fork_rng(") for item in node.items)
    ]


def undocumented(tree: ast.Module, path: str) -> Iterator[Offence]:
    if ast.get_docstring(tree) is None:
        yield 1, "has no docstring that tells what the file is for"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for owner in (tree, *classes):
        for node in owner.body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and ast.get_docstring(node) is None:
                yield node.lineno, f"{node.name} has no docstring"


IN_PACKAGES: tuple[Rule, ...] = (hasty_import, printing, broad_except, global_randomness, undocumented)
IN_PACKAGES_AND_EXPERIMENTS: tuple[Rule, ...] = (wrong_arrow, stranger, unsafe_loading)

SPECIMENS: list[tuple[Rule, str, str]] = [
    (wrong_arrow, "planners/x.py", "def f():\n    from jepa_mpc.envs.reach import ReachEnv"),
    (wrong_arrow, "jepa_mpc/x.py", "import jepa_mpc.encoders.vit"),
    (wrong_arrow, "envs/x.py", "from jepa_mpc.experiments.commands import train"),
    (wrong_arrow, "jepa_mpc/face/x.py", "from jepa_mpc.experiments.commands import train"),
    (wrong_arrow, "jepa_mpc/reporting/x.py", "from jepa_mpc.envs.reach import ReachEnv"),
    (wrong_arrow, "planners/x.py", "from jepa_mpc import envs"),
    (wrong_arrow, "envs/x.py", "from envs.reach import ReachEnv"),
    (wrong_arrow, "envs/x.py", "from .reach import ReachEnv"),
    (stranger, "planners/x.py", "import mujoco"),
    (stranger, "envs/reach.py", "import imageio.v3"),
    (stranger, "world_model/x.py", "from hydra.utils import instantiate"),
    (stranger, "jepa_mpc/x.py", "import torchvision"),
    (hasty_import, "trajectories/formats/hdf5.py", "import h5py"),
    (printing, "jepa_mpc/x.py", "print('hello')"),
    (broad_except, "jepa_mpc/x.py", "try:\n    f()\nexcept:\n    pass"),
    (broad_except, "jepa_mpc/x.py", "try:\n    f()\nexcept (OSError, Exception):\n    pass"),
    (unsafe_loading, "jepa_mpc/x.py", "torch.load(path, weights_only=False)"),
    (unsafe_loading, "jepa_mpc/x.py", "np.load(path, allow_pickle=True)"),
    (unsafe_loading, "jepa_mpc/x.py", "pickle.load(file)"),
    (unsafe_loading, "jepa_mpc/x.py", "yaml.load(text)"),
    (unsafe_loading, "jepa_mpc/x.py", "eval(text)"),
    (unsafe_loading, "jepa_mpc/x.py", "network.load_state_dict(weights, strict=False)"),
    (global_randomness, "jepa_mpc/x.py", "np.random.rand(3)"),
    (global_randomness, "jepa_mpc/x.py", "torch.manual_seed(0)"),
    (global_randomness, "jepa_mpc/x.py", "torch.randn(3)"),
    (global_randomness, "jepa_mpc/x.py", "import random"),
    (undocumented, "jepa_mpc/x.py", '"""What for."""\nclass A:\n    """One."""\n    def go(self): ...'),
]


ALLOWED: list[tuple[Rule, str, str]] = [
    (wrong_arrow, "world_model/x.py", "from jepa_mpc.encoders.vit import VisionTransformer"),
    (stranger, "trajectories/formats/hdf5.py", "import h5py"),
    (hasty_import, "trajectories/formats/hdf5.py", "def read():\n    import h5py"),
    (broad_except, "jepa_mpc/x.py", "try:\n    f()\nexcept BaseException:\n    tidy()\n    raise"),
    (global_randomness, "jepa_mpc/x.py", "rng = np.random.default_rng(3)\ntorch.rand(3, generator=generator)"),
    (global_randomness, "jepa_mpc/x.py", "with torch.random.fork_rng():\n    torch.manual_seed(3)"),
]


@functools.cache
def files_of(folder: str) -> list[tuple[str, ast.Module]]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def offences(rule: Rule, *folders: str) -> list[str]:
    return [
        f"{path}:{line}: {what}"
        for folder in folders
        for path, tree in files_of(folder)
        for line, what in rule(tree, path)
    ]


@pytest.mark.parametrize("rule", IN_PACKAGES_AND_EXPERIMENTS, ids=lambda rule: rule.__name__)
def test_the_whole_house_is_free_of(rule: Rule):
    found = offences(rule, *PACKAGES, "experiments")
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("rule", IN_PACKAGES, ids=lambda rule: rule.__name__)
def test_the_packages_are_free_of(rule: Rule):
    found = offences(rule, *PACKAGES)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(("rule", "path", "text"), SPECIMENS, ids=lambda part: getattr(part, "__name__", None))
def test_a_rule_sees_what_breaks_it(rule: Rule, path: str, text: str):
    assert list(rule(ast.parse(text), path))


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED, ids=lambda part: getattr(part, "__name__", None))
def test_a_rule_lets_pass_what_is_right(rule: Rule, path: str, text: str):
    assert not list(rule(ast.parse(text), path))


def test_no_module_imports_itself_through_others():
    trees = {_module(path): tree for package in PACKAGES for path, tree in files_of(package)}
    graph = {
        module: {name for node in tree.body for name in _imported_modules(node, trees.keys()) if name != module}
        for module, tree in trees.items()
    }
    _free_of_circles(graph)


def test_the_rooms_of_the_world_model_form_no_circle():
    graph: dict[str, set[str]] = {}
    for path, tree in files_of("world_model"):
        room = path.split("/")[1]
        for _, name in imports(tree):
            parts = name.split(".")
            if parts[:2] == ["jepa_mpc", "world_model"] and len(parts) > 2 and parts[2] != room:
                graph.setdefault(room, set()).add(parts[2])
    _free_of_circles(graph)


def test_no_file_of_the_world_model_lies_loose():
    files = [path for path, _ in files_of("world_model")]
    assert [path for path in files if path.count("/") == 1] == ["world_model/__init__.py"]


def test_no_room_is_crowded():
    rooms = collections.Counter(
        path.rpartition("/")[0]
        for folder in ("world_model", "jepa_mpc", "experiments/evaluation")
        for path, _ in files_of(folder)
    )
    del rooms["jepa_mpc"]  # the vocabulary itself
    assert not {room: count for room, count in rooms.items() if count > CROWDED}


def test_the_files_of_experiments_have_names_of_their_own():
    names = collections.Counter(path.rpartition("/")[2] for path, _ in files_of("experiments/evaluation"))
    assert not {name for name, count in names.items() if count > 1} - {"__init__.py"}


def _module(path: str) -> str:
    name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] == "jepa_mpc" else f"jepa_mpc.{name}"


def _free_of_circles(graph: Mapping[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other in a circle: {' -> '.join(error.args[1])}")


def _imported_modules(node: ast.stmt, modules: Collection[str]) -> set[str]:
    """Modules of the house that a top-level statement imports; `from package import module` counts as the module."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names} & set(modules)
    if not isinstance(node, ast.ImportFrom):
        return set()
    inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(modules)
    return inner or {str(node.module)} & set(modules)


def test_every_package_says_what_it_is_for():
    missing = [
        str(folder.relative_to(ROOT))
        for package in PACKAGES
        for folder in (ROOT / package, *(ROOT / package).rglob("*"))
        if folder.is_dir() and list(folder.glob("*.py")) and not (folder / "__init__.py").exists()
    ]
    assert not missing, f"without __init__.py: {', '.join(missing)}"
