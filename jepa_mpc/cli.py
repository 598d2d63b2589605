"""The command line: `jepa-mpc reach labs=2`. The scripts in experiments/ run the same commands."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jepa_mpc.hangup import end_on_hangup
from jepa_mpc.options import help_text, options_of
from jepa_mpc.places import CONFIGS


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A command.

    Args:
        script: Name of its script in experiments/, its module in experiments/commands/ and its configuration.
        does: What it does, in one sentence.
        first: Option set by a first word without `=`, if any: `jepa-mpc features film.mp4`.
    """

    script: str
    does: str
    first: str = ""


COMMANDS: Mapping[str, Entry] = {
    "reach": Entry(script="zero_shot_reach", does="Reach image goals in labs that no training log contained."),
    "pick": Entry(script="zero_shot_pick", does="Pick and place towards goal images in unseen labs."),
    "train": Entry(script="train", does="Train a system on logs."),
    "collect": Entry(script="collect", does="Record reward-free motion in simulated labs."),
    "workflow": Entry(
        script="workflow", does="Run the commands of a plan in a row, such as those of a whole training."
    ),
    "evaluate": Entry(script="evaluate", does="Score a world model in any environment, beside baselines."),
    "ingest": Entry(script="ingest", does="Turn a log of any format into a checked, memory-mapped cache."),
    "inspect": Entry(script="inspect_logs", does="Describe a folder of robot logs and report problems."),
    "convert": Entry(script="convert", does="Write a log in another format."),
    "bench": Entry(script="bench_planners", does="Compare planners over tasks, budgets and seeds."),
    "render": Entry(script="render_rollouts", does="Render videos of planners side by side."),
    "render-masks": Entry(script="render_masks", does="Draw the masks of a masked system on a logged sample."),
    "features": Entry(
        script="features", does="Encode videos, images, point clouds or sounds into a file of features.", first="source"
    ),
    "import-weights": Entry(script="import_weights", does="Turn released weights of a world model into a checkpoint."),
    "publish": Entry(script="publish", does="Publish a trained world model as a checkpoint folder."),
    "probe": Entry(script="probe", does="Probe frozen features for the positions of hand and object."),
    "serve": Entry(script="serve", does="Serve a planning agent over openpi's websocket protocol."),
    "train-policy": Entry(script="train_policy", does="Train a policy from a log and from a planner."),
    "train-critic": Entry(script="train_critic", does="Train a critic for the two-mode agent."),
    "ablate": Entry(script="agent_ablations", does="Ablate the full agent, one module at a time."),
    "landscape": Entry(script="energy_landscape", does="Plot the energy over a grid of actions."),
    "headroom": Entry(script="headroom", does="Measure the gain from predicting the object, on true states."),
    "bench-act-jepa": Entry(script="bench_act_jepa", does="Compare ACT-JEPA with behaviour cloning."),
    "bench-encoders": Entry(script="bench_encoders", does="Compare camera encoders, each pretrained on one log."),
    "bench-sensors": Entry(script="bench_sensors", does="Compare encoders of clouds and sounds at jobs of the robot."),
    "bench-flow": Entry(script="bench_flow", does="Compare MC-JEPA's optical flow with the simulator's."),
    "bench-objects": Entry(script="bench_objects", does="Measure object slots: binding, masks, pushes."),
    "bench-loading": Entry(script="bench_loading", does="Time ingesting and loading of logs."),
    "bench-rollout": Entry(script="bench_rollout", does="Time rollouts of V-JEPA 2-AC, cached and uncached."),
    "bench-speed": Entry(script="bench_speed", does="Time rollouts, searches and the control loop."),
}


def main() -> None:
    """The console script `jepa-mpc`."""
    sys.exit(dispatch(sys.argv[1:]))


def dispatch(words: Sequence[str]) -> int:
    """Run the command named by the first word; returns the exit status."""
    if not words or words[0] in ("-h", "--help"):
        show(overview())
        return 0
    if words[0] in ("-V", "--version"):
        from jepa_mpc import __version__

        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"jepa-mpc: unknown command {words[0]!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[words[0]]
    sys.argv = [f"jepa-mpc {words[0]}", *words[1:]]
    run_command(command, usage=sys.argv[0])
    return 0


def show(text: str) -> None:
    """Print a text whose reader, such as `head`, may leave before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends


def script(name: str) -> None:
    """Run a command from its script in experiments/."""
    command = next(command for command in COMMANDS.values() if command.script == name)
    run_command(command, usage=f"python experiments/{name}.py")


def run_command(command: Entry, *, usage: str) -> None:
    """Print the help if asked for, otherwise load and run the command."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        options, groups = options_of(CONFIGS / f"{command.script}.yaml")
        show(help_text(command.does, usage=usage, options=options, groups=groups))
        return
    sys.argv[1:] = spelled_out(command, sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends a command as Ctrl-C does
    end_on_hangup()
    try:
        module = importlib.import_module(f"jepa_mpc.experiments.commands.{command.script}")
        from jepa_mpc.face.command_line import run
    except ModuleNotFoundError as error:
        sys.exit(missing(error, command.script))
    except KeyboardInterrupt:
        print(f"{command.script}: interrupted before it started", file=sys.stderr)
        sys.exit(130)
    run(module.main, name=command.script)


def spelled_out(command: Entry, words: Sequence[str]) -> list[str]:
    """The words of a command, with a bare first word expanded to `option=word`."""
    if not command.first or not words or "=" in words[0] or words[0].startswith("-"):
        return list(words)
    quoted = words[0].replace("\\", "\\\\").replace("'", "\\'")
    return [f"{command.first}='{quoted}'", *words[1:]]


def missing(error: ModuleNotFoundError, script: str) -> str:
    """Message for a missing package; the usual cause is the wrong Python interpreter."""
    return (
        f"{script}: {sys.executable} has no package {(error.name or '').partition('.')[0]}: use the Python that the "
        "project was installed for (.venv/bin/python of the README), or install it: pip install -e ."
    )


def overview() -> str:
    """The text of `jepa-mpc --help`."""
    width = max(map(len, COMMANDS)) + 2
    rows = [f"  {name:{width}}{command.does}" for name, command in COMMANDS.items()]
    head = ["usage: jepa-mpc COMMAND [option=value ...]", "", "Commands:"]
    return "\n".join([*head, *rows, "", "jepa-mpc COMMAND --help lists the options of a command."])
