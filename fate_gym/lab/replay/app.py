"""``fate-gym replay``: executes a simulated schedule and compares it with its simulation."""

from __future__ import annotations

from pathlib import Path

from fate_gym.catalog import Gpu, Model
from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.decoder.device import TorchDevice, open_device
from fate_gym.lab.decoder.shape import DecoderShape, shape_of
from fate_gym.lab.errors import unwritable
from fate_gym.lab.replay.compare import HEADS, compare, summary
from fate_gym.lab.replay.execute import execute
from fate_gym.lab.replay.predict import predicted_seconds
from fate_gym.lab.replay.script import Script, script_of
from fate_gym.lab.tables import print_table
from fate_gym.sim import Trace
from fate_gym.workloads.gpu_file import SEPARATOR, read_gpu


def replay(
    file: Path,
    device: str,
    of: str | None,
    gpu: str | None,
    scale: float,
    repeats: int,
    output: Path | None,
) -> None:
    """Execute, compare, and show.

    Raises:
        InputError: no PyTorch, no such device, too little memory, a file that is not a trace or is
            of another version, or a schedule that cannot be executed.
    """
    if repeats < 1 or not scale >= 1:
        raise InputError("--repeats and --scale are at least 1", remedy="choose 1 or more")
    script = script_of(Trace.load(file), of, str(file))
    on = open_device(device)
    rows = replay_script(script, on, gpu=_gpu(gpu), scale=scale, repeats=repeats)
    if output is not None:
        try:
            write_text(output, rows.to_csv(index=False, lineterminator="\n"))
        except OSError as error:
            raise unwritable(output, error, "choose another file with --output") from None
    title = f"{script.trace.policy} on {on.name}, {repeats} times"
    print_table(HEADS, summary(rows), title=title)


def replay_script(
    script: Script, device: TorchDevice, *, gpu: Gpu | None, scale: float, repeats: int
) -> Frame:
    """Execute a script ``repeats`` times after a warm-up; return the rows of `compare.compare`."""
    facts = script.trace.problem.model_facts
    shapes = {name: shape_of(facts[name], scale) for name in script.models}
    predicted = predicted_seconds(script, gpu, scaled_models(shapes, scale))
    executor = execute(device, script, shapes)
    executor.run()
    runs = [executor.run() for _ in range(repeats)]
    return compare(script, predicted, runs)


def scaled_models(shapes: dict[str, DecoderShape], scale: float) -> dict[str, Model]:
    """Return models with the facts of the scaled decoders; none at a scale of 1."""
    return {} if scale == 1 else {name: shape.facts(name) for name, shape in shapes.items()}


def _gpu(reference: str | None) -> Gpu | None:
    if reference is None:
        return None
    if SEPARATOR not in reference:
        raise InputError(
            f"{reference!r} names no GPU in a file",
            remedy="write it as FILE.yaml#NAME, as `fate-gym calibrate` prints it",
        )
    return read_gpu(reference, Path())
