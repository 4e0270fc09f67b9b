"""The `mmssl` command: every command parses, calls one function and prints. Heavy imports live inside the commands."""

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

import console
from pipeline.runtime.errors import Interrupted, MmsslError, UsageError

if TYPE_CHECKING:
    from trainer.training.run_folder import Run

app = typer.Typer(
    name="mmssl",
    help="Few labels and many unlabelled multimodal pairs in; a classifier that survives a missing modality out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
preprocess = typer.Typer(help="Make the shards of a data set.", no_args_is_help=True)
shards = typer.Typer(help="ModelsSection into shards, and verify them.", no_args_is_help=True)
app.add_typer(preprocess, name="preprocess")
app.add_typer(shards, name="shards")
data_sets = typer.Typer(help="Fetch data sets, verify them, render a sample.", no_args_is_help=True)
app.add_typer(data_sets, name="data")

_log = logging.getLogger("mmssl")
T = TypeVar("T", int, float)

Root = Annotated[
    Path, typer.Option(envvar="MMSSL_ROOT", help="The workspace: raw/, shards/, runs/.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
WORKSPACE = Path("workspace")
MOST_NUMBERS = 10_000


def main() -> NoReturn:
    """Runs a command; errors of the user's making become one line, a hint and an exit code."""
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, _interrupt)
    try:
        # A container's first process hears nothing before it has handlers; its entry point blocks the signal till here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        app()
    except MmsslError as error:
        console.complain(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        console.complain(UsageError(f"{str(error.filename)[:80]}...: a name is longer than the system allows"))
        sys.exit(UsageError.exit_code)
    sys.exit(0)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; nothing half-written was left", "the same command starts again"
    )


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Semi-supervised multimodal learning with deep generative models (Suzuki & Matsuo 2018)."""
    if version:
        from pipeline.runtime.versions import versions

        console.say(f"mmssl {versions()['mmssl']}")
        raise typer.Exit
    console.show_log()


def numbers(text: str | None, kind: Callable[[str], T], option: str) -> list[T]:
    """`0..4` (inclusive), `0,3,7` or both: `0..4,7`. Empty for None."""
    found: list[T] = []
    for part in text.split(",") if text is not None else []:
        first, dots, last = part.strip().partition("..")
        try:
            if dots and int(last) - int(first) >= MOST_NUMBERS:
                raise UsageError(f"{option} {part[:80]}: these are more than {MOST_NUMBERS:,} numbers")
            found.extend(map(kind, map(str, range(int(first), int(last) + 1)))) if dots else found.append(kind(first))
        except ValueError:
            raise UsageError(
                f"{option} {text}: '{part}' is no number or range", f"examples: {option} 0..4, {option} 0,3,7"
            ) from None
    if text is not None and (not found or len(set(found)) < len(found)):
        raise UsageError(f"{option} {text}: {'a number comes twice' if found else 'the range is empty'}")
    return found


# --- preprocess ------------------------------------------------------------------------------------------------------


def _digits(name: str, root: Path, **options: Any) -> None:
    from pipeline.datasets.digits import build

    console.say(str(build(name, root / "shards", root / "raw", **options)))


Rotation = Annotated[float, typer.Option(help="Largest angle of rotation of x, in degrees.")]
NoiseLevel = Annotated[float, typer.Option(help="Standard deviation of w's Gaussian noise; pixels lie in 0..1.")]
PairSeed = Annotated[int, typer.Option(help="Decides every pair's angle and noise.")]


@preprocess.command("hm-mnist")
def hm_mnist(root: Root = WORKSPACE) -> None:
    """MNIST's left halves as x, right halves as w."""
    _digits("hm-mnist", root)


@preprocess.command("nm-mnist")
def nm_mnist(rotation: Rotation = 45.0, noise: NoiseLevel = 0.5, seed: PairSeed = 0, root: Root = WORKSPACE) -> None:
    """MNIST rotated as x, noisy as w."""
    _digits("nm-mnist", root, rotation=rotation, noise=noise, seed=seed)


@preprocess.command("hm-digits")
def hm_digits(root: Root = WORKSPACE) -> None:
    """The halves of scikit-learn's bundled 1,797 digits: no download."""
    _digits("hm-digits", root)


@preprocess.command("nm-digits")
def nm_digits(rotation: Rotation = 45.0, noise: NoiseLevel = 0.5, seed: PairSeed = 0, root: Root = WORKSPACE) -> None:
    """scikit-learn's bundled digits, rotated and noisy: no download."""
    _digits("nm-digits", root, rotation=rotation, noise=noise, seed=seed)


# --- RGB-D -----------------------------------------------------------------------------------------------------------


RgbdData = Annotated[str, typer.Option("--data", help="rgbd, or rgbd-sample (see `mmssl data sample`).")]
Encoding = Annotated[str | None, typer.Option(help="Depth as colours: jet (the paper's), normals or raw.")]
Size = Annotated[int | None, typer.Option(help="Side of the images in pixels; the paper's is 148.")]
Scheduler = Annotated[str | None, typer.Option(help="A Dask cluster's scheduler, tcp://HOST:8786.")]


@preprocess.command("rgbd")
def preprocess_rgbd(
    data: RgbdData = "rgbd",
    depth_encoding: Encoding = None,
    size: Size = None,
    preview: Annotated[Path | None, typer.Option(help="Draw some frames, raw and processed, into this PNG.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes; by default one a core.")] = None,
    scheduler: Scheduler = None,
    strict: Annotated[bool, typer.Option("--strict", help="A frame that cannot be used is an error.")] = False,
    root: Root = WORKSPACE,
) -> None:
    """Washington RGB-D frames to images for the network; `mmssl extract` goes on from them."""
    from pipeline.images import preprocess as stage
    from pipeline.images.store import ImageSettings
    from pipeline.options import settings_of

    settings = settings_of(ImageSettings, size=size, depth_encoding=depth_encoding)
    if preview is not None:
        stage.preview(data, root, settings, preview)
        _log.info("wrote %s", preview)
    with console.counting("objects") as progress:
        store = stage.preprocess(
            data, root, settings, workers=workers, scheduler=scheduler, strict=strict, progress=progress
        )
    console.say(f"{store.folder.resolve()}: {len(store.ids)} frames")


@app.command()
def extract(
    split: Annotated[str, typer.Option(help="Splits: 0..9 or 0,3,7.")] = "0..9",
    modality: Annotated[str, typer.Option(help="rgb, depth or both.")] = "rgb,depth",
    data: RgbdData = "rgbd",
    depth_encoding: Encoding = None,
    size: Size = None,
    weights: Annotated[
        str, typer.Option(help="VGG16's: imagenet, random, or a file (.pth, .safetensors).")
    ] = "imagenet",
    epochs: Annotated[int | None, typer.Option(help="Of fine-tuning; 200 by default, 0 for none.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Of fine-tuning.")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate; 1e-5 by default.")] = None,
    labelled: Annotated[float | None, typer.Option(help="Share of training images with a label; 0.05.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the labelled images and of fine-tuning.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the shards; by default the data's and what differs.")] = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    root: Root = WORKSPACE,
) -> None:
    """Fine-tune VGG16 on each split's labelled images, and write the shards of its features.

    The same command again goes on where it was stopped, and does nothing where all is done.
    """
    from pipeline.features import extract as stage
    from pipeline.features.fine_tuning import FeatureSettings
    from pipeline.images.store import ImageSettings
    from pipeline.options import settings_of

    with console.extracting() as progress:
        shards_made = stage.extract(
            data,
            root,
            numbers(split, int, "--split"),
            settings_of(ImageSettings, size=size, depth_encoding=depth_encoding),
            settings_of(
                FeatureSettings, labelled=labelled, seed=seed, epochs=epochs, learning_rate=lr, batch_size=batch_size
            ),
            weights=weights,
            modalities=[part.strip() for part in modality.split(",")],
            name=name,
            device=device,
            scheduler=scheduler,
            progress=progress,
        )
    for path in shards_made:
        console.say(str(path.resolve()))


@data_sets.command("list")
def list_data(root: Root = WORKSPACE) -> None:
    """Show the data sets there are, and where they lie."""
    from pipeline.datasets.catalogue import known

    console.data_sets(known(root))


@data_sets.command()
def fetch(name: str, root: Root = WORKSPACE) -> None:
    """Download a data set, verify and unpack it; what is there already is used."""
    from pipeline.datasets import catalogue

    found = catalogue.fetch(name, root)
    for deviation in found:
        _log.warning("%s", deviation)
    console.say(f"{name}: {f'there, with {len(found)} deviations' if found else 'there'}")


@data_sets.command("verify")
def verify_data(name: str, root: Root = WORKSPACE) -> None:
    """Hold a data set against its manifest: checksums, or what an archive must contain."""
    from pipeline.datasets import catalogue

    found = catalogue.verify(name, root)
    for deviation in found:
        console.say(deviation)
    if found:
        raise typer.Exit(1)
    console.say(f"{name}: good")


@data_sets.command("sample")
def render_sample(
    categories: Annotated[int, typer.Option(help="How many kinds of thing.")] = 10,
    objects: Annotated[int, typer.Option(help="Objects of each.")] = 4,
    views: Annotated[int, typer.Option(help="Views of an object in each of three videos.")] = 8,
    seed: Annotated[int, typer.Option(help="Decides every pixel.")] = 0,
    root: Root = WORKSPACE,
) -> None:
    """Render a small RGB-D data set in the Washington layout: no download."""
    from pipeline.images.preprocess import SAMPLE
    from pipeline.sample.render import render

    with console.counting("objects") as progress:
        folder = render(
            root / "raw" / SAMPLE,
            categories=categories,
            objects_per_category=objects,
            views=views,
            seed=seed,
            progress=progress,
        )
    console.say(str(folder.resolve()))


# --- demo ------------------------------------------------------------------------------------------------------------


@app.command()
def demo(device: Device = "auto", root: Root = WORKSPACE) -> None:
    """What happens when a camera fails, from nothing to a table in minutes: no download.

    The same command again goes on where it was stopped.
    """
    from pipeline.demo import DEMO, NAME
    from pipeline.features import extract as features
    from pipeline.images import preprocess as images
    from pipeline.sample.render import render
    from pipeline.shards.shard import Shard
    from trainer.jobs import train as runner
    from trainer.reporting.run_tables import table

    where = runner.choose_device(device)
    splits = ",".join(map(str, DEMO.splits))
    console.demo_step(
        1, "renders a small RGB-D data set: no real photograph is in it", "mmssl data fetch washington-rgbd"
    )
    with console.counting("objects") as progress:
        render(
            root / "raw" / images.SAMPLE,
            categories=DEMO.categories,
            objects_per_category=DEMO.objects,
            views=DEMO.views,
            progress=progress,
        )
    console.demo_step(
        2, f"makes images of {DEMO.images.size} x {DEMO.images.size}, depth as colours", "mmssl preprocess rgbd"
    )
    with console.counting("objects") as progress:
        images.preprocess(images.SAMPLE, root, DEMO.images, progress=progress)
    tuned = f"fine-tuned for {DEMO.features.epochs} epochs" if DEMO.features.epochs else "not fine-tuned"
    console.demo_step(
        3,
        f"takes fc1 of a VGG16 with RANDOM weights, {tuned}; {DEMO.features.labelled:.0%} of the training images keep "
        "their label (the paper: ImageNet weights, 200 epochs, 5%)",
        "mmssl extract --split 0..9",
    )
    with console.extracting() as progress_of_features:
        paths = features.extract(
            images.SAMPLE,
            root,
            DEMO.splits,
            DEMO.images,
            DEMO.features,
            weights="random",
            name=NAME,
            device=device,
            progress=progress_of_features,
        )
    shards = [Shard.open(path) for path in paths]
    console.demo_step(
        4,
        f"trains two models with the preset `sample` on split {splits}",
        "mmssl train sshmvae-kl --data rgbd --split 0..9",
    )
    jobs = [job for model in ("sshmvae", "sshmvae-kl") for job in runner.plan(model, shards, preset="sample")]
    with console.watching() as progress_of_training:
        done = runner.train_all(jobs, runner.folders(jobs, None, root / "runs"), where, progress_of_training)
    console.failures(table(done), len(shards[0].classes))


# --- shards ----------------------------------------------------------------------------------------------------------


@shards.command()
def inspect(file: Path, as_json: Json = False) -> None:
    """Show what is in a shard."""
    from dataclasses import asdict

    from pipeline.shards.shard import Shard
    from pipeline.shards.summary import describe

    found = describe(Shard.open(file))
    if as_json:
        console.as_json(asdict(found))
    else:
        console.shard(found)


@shards.command()
def verify(files: list[Path]) -> None:
    """Read every byte of shards, and check it."""
    from pipeline.shards.shard import Shard

    for file in files:
        Shard.open(file).verify()
        console.say(f"{file}: good")


# --- train and evaluate ----------------------------------------------------------------------------------------------


@app.command()
def train(
    model: Annotated[
        str, typer.Argument(help="jmvae, jmvae-kl, m2, sdgm, ssmvae, sshmvae, sshmvae-kl, ct-svm or cotraining")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="hm-mnist, nm-mnist, hm-digits, nm-digits, or a shard's FILE.h5 ({split} in it for --split)."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="How many labelled training examples, equal per class; 'all'; or 'shard', those it marks."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Replicas: 0..4 or 0,3,7.")] = "0",
    split: Annotated[str | None, typer.Option(help="Splits of the data: 0..9 or 0,3,7.")] = None,
    alpha: Annotated[
        str | None, typer.Option(help="Weight of the classifier (eq. 6), one or several: 0.1,1,10.")
    ] = None,
    beta: Annotated[
        str | None, typer.Option(help="Weight of the divergence (eq. 13), one or several: 0.1,1,10.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the unlabelled examples; rounds of co-training.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="'bound' (eq. 7), or 'classifier': log q(y|.) of the labelled ones alone.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Unlabelled examples a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Adam's learning rate.")] = None,
    label: Annotated[
        str | None, typer.Option(help="An unobserved label: 'gumbel' sample, or 'exact' sum over classes.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the Gumbel-softmax sample.")] = None,
    modality: Annotated[str | None, typer.Option(help="Only these modalities: x, or x,w.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings to start from: mnist, rgbd, digits or sample (by default the data's own); or best, ours."
        ),
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Of iterative sampling, at evaluation.")] = None,
    samples: Annotated[int | None, typer.Option(help="Of latent variables at evaluation; 0 takes their mean.")] = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    precision: Annotated[str | None, typer.Option(help="fp32, tf32 or bf16.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The run's folder, or the folder of several runs.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings; options go before it.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting, NAME=VALUE; may be given several times.")
    ] = None,
    stack: Annotated[int, typer.Option(min=1, help="Most replicas trained in one pass.")] = 16,
    memory_limit: Annotated[
        str | None, typer.Option(help="2GB, say: features that take more are streamed from disk within it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved settings, train nothing.")] = False,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Train a model, and show what it can do with each modality missing.

    The same command again goes on where it was stopped, and does nothing where all is done.
    """
    from pipeline.datasets.resolve import BUNDLED, shard_paths
    from pipeline.shards.shard import Shard
    from trainer.jobs import executors as parts
    from trainer.jobs import train as runner
    from trainer.reporting.run_tables import table
    from trainer.settings.run_settings import read_assignments, read_toml
    from trainer.training.run_folder import Run

    runner.check_model(model)
    where = runner.choose_device(device if scheduler is None else "auto")  # workers have devices of their own
    values = (read_toml(config) if config is not None else {}) | read_assignments(assignments or [])
    given = {
        "labels": int(labels) if labels is not None and labels.isdigit() else labels,
        "epochs": epochs,
        "objective": objective,
        "batch_size": batch_size,
        "learning_rate": lr,
        "label": label,
        "temperature": temperature,
        "modalities": tuple(modality.split(",")) if modality is not None else None,
        "iterations": iterations,
        "samples": samples,
        "precision": precision,
        "memory_limit": memory_limit,
    }
    values |= {key: value for key, value in given.items() if value is not None}
    data = data or values.pop("data", None)
    if data is None:
        data = BUNDLED
        _log.info(
            "training on the bundled %s; others: --data hm-mnist, --data nm-mnist, --data FILE.h5 (RGB-D, your own)",
            data,
        )
    chosen = [Shard.open(path) for path in shard_paths(data, numbers(split, int, "--split"), root)]
    jobs = runner.plan(
        model,
        chosen,
        preset=preset,
        values=values,
        seeds=numbers(seeds, int, "--seeds"),
        alphas=numbers(alpha, float, "--alpha"),
        betas=numbers(beta, float, "--beta"),
        stack=stack,
    )
    folders = runner.folders(jobs, folder, root / "runs")
    if dry_run:
        console.as_json(
            [
                {"folder": str(f.resolve()), "settings": j.settings.model_dump()}
                for j, f in zip(jobs, folders, strict=True)
            ]
        )
        return
    if scheduler is None:
        with console.watching() as progress:
            done = runner.train_all(jobs, folders, where, progress, stack)
    else:
        todo = make_stacks([parts.PlannedRun(job, path) for job, path in zip(jobs, folders, strict=True)], stack)
        with console.watching() as progress, console.finishing(todo) as finished:
            runner.remove_leftovers(folders)
            parts.raise_if_failed(parts.train_stacks(todo, device, progress, scheduler=scheduler, finished=finished))
        done = [Run.prepare(path, job.settings) for job, path in zip(jobs, folders, strict=True)]
    if as_json:
        console.as_json([_as_dict(run) for run in done])
    else:
        console.results(table(done), done)


@app.command()
def evaluate(
    run: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    iterations: Annotated[int | None, typer.Option(min=1, help="Of iterative sampling.")] = None,
    samples: Annotated[int | None, typer.Option(min=0, help="Of latent variables; 0 takes their mean.")] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score finished runs anew on their test sets, with other means if you like."""
    from dataclasses import asdict

    from trainer.jobs import train as runner
    from trainer.training.run_folder import Run

    where = runner.choose_device(device)
    found = [Run.open(path) for path in run]
    results = [runner.evaluate_run(one, where, iterations=iterations, samples=samples) for one in found]
    if as_json:
        console.as_json(
            [
                {"folder": str(one.folder.resolve()), **asdict(result)}
                for one, result in zip(found, results, strict=True)
            ]
        )
        return
    for one, result in zip(found, results, strict=True):
        console.evaluation(one.folder.name, result)


@app.command()
def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Where to look; by default the workspace's runs.")
    ] = None,
    curves: Annotated[
        Path | None, typer.Option(help="Draw accuracy against epochs into this .png, .svg or .pdf file.")
    ] = None,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """List the runs that are there."""
    from trainer.reporting import plots as figures
    from trainer.training.run_folder import find

    found = find(folders or [root / "runs"])
    if curves is not None:
        figures.curves(found, curves)
        _log.info("wrote %s", curves)
    if as_json:
        console.as_json([_as_dict(run) for run in found])
        return
    if not found:
        console.say("no runs yet; train one: mmssl train sshmvae-kl")
    else:
        console.runs(found)


# --- generate and report ---------------------------------------------------------------------------------------------


@app.command()
def generate(
    run: Annotated[list[Path], typer.Argument(help="Folders of finished runs.")],
    given: Annotated[str, typer.Option("--from", help="The modality that is seen, or several: x,v.")],
    target: Annotated[str, typer.Option("--to", help="The modality that is made.")],
    examples: Annotated[int, typer.Option(min=1, help="How many test examples, of each class in turn.")] = 10,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of iterative sampling.")] = None,
    file: Annotated[
        Path | None, typer.Option("--out", help="A picture (.png, .svg, .pdf), or numbers (.npz).", show_default=False)
    ] = None,
    device: Device = "auto",
) -> None:
    """Make one modality from another, by every means that the runs' models have, under the true one."""
    from trainer.jobs import train as runner
    from trainer.reporting.generated_images import write_generated
    from trainer.training.run_folder import Run

    where = runner.choose_device(device)
    seen = [part.strip() for part in given.split(",")]
    path = file or Path(f"{target}-from-{'-'.join(seen)}.png")
    found = [Run.open(folder) for folder in run]
    write_generated(found, path, where, given=seen, target=target, examples=examples, iterations=iterations)
    console.say(str(path.resolve()))


@app.command()
def report(
    what: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, results, or folders of them; by default the workspace's runs.", show_default=False),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="One self-contained page; report.html by default.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="The tables as Markdown.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Numbers, settings, provenance as JSON.")] = None,
    models: Annotated[
        bool, typer.Option(help="Draw what needs the models and their data: images, latent spaces, confusions.")
    ] = True,
    device: Device = "auto",
    root: Root = WORKSPACE,
) -> None:
    """Put results beside the paper's, and runs with their curves, onto one page."""
    from trainer.jobs import train as runner
    from trainer.reporting import page
    from trainer.reporting import render as rendering

    where = runner.choose_device(device)
    if html is None and markdown is None and as_json is None:
        html = Path("report.html")
    forms = ((html, rendering.html), (markdown, rendering.markdown), (as_json, rendering.as_json))
    outcomes, found = page.read(what or [root / "runs"])
    made = page.compose(outcomes, found, where, models)
    for path, form in forms:
        if path is not None:
            rendering.write(made, path, form)
            console.say(str(path.resolve()))


def _as_dict(run: "Run") -> dict[str, Any]:
    from dataclasses import asdict

    result = asdict(run.result()) if run.done else None
    return {
        "folder": str(run.folder.resolve()),
        "settings": run.settings.model_dump(),
        "epochs": len(run.metrics()),
        "result": result,
    }


# --- reproduce -------------------------------------------------------------------------------------------------------


@app.command()
def reproduce(
    what: Annotated[list[str], typer.Argument(help="table1 .. table6, figure4, figure5, figure6, or all.")],
    seeds: Annotated[str, typer.Option(help="Of the runs on MNIST: 0..4 or 0,3; RGB-D takes the first.")] = "0..4",
    split: Annotated[str, typer.Option(help="Splits of RGB-D: 0..9 or 0,3,7.")] = "0..9",
    epochs: Annotated[int | None, typer.Option(min=1, help="Fewer than the paper's 500 (MNIST), 100 (RGB-D).")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="In the paper's place: digits (of MNIST), rgbd-sample or another name (of RGB-D)."),
    ] = None,
    data_only: Annotated[str | None, typer.Option("--data-only", help="Only what is on mnist, or on rgbd.")] = None,
    preset: Annotated[str | None, typer.Option(help="Other settings than the paper's: best, sample, ...")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, NAME=VALUE; may be given several times.")
    ] = None,
    stack: Annotated[
        int | None, typer.Option(min=1, help="Most runs trained in one pass: 16 on CUDA or a cluster, 1 on a CPU.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes of this machine.")] = 1,
    scheduler: Scheduler = None,
    device: Device = "auto",
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.01, help="Minutes of training; then it stops, and can go on.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Folder for the tables.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs that are needed, train nothing.")] = False,
    as_json: Json = False,
    root: Root = WORKSPACE,
) -> None:
    """Train what the paper's tables and figures need, and set our numbers beside its own.

    Finished runs are used again. The same command goes on where it was stopped.
    """
    from pipeline.datasets.resolve import shard_paths
    from pipeline.runtime.leases import lease
    from pipeline.shards.shard import Shard
    from trainer.jobs import executors as parts
    from trainer.jobs import train as runner
    from trainer.reproduction import measure as reproduction
    from trainer.settings.run_settings import read_assignments

    parts.check_jobs(jobs, scheduler)
    where = runner.choose_device(device if scheduler is None else "auto")  # workers have devices of their own
    wanted = reproduction.select(what, data_only)
    protocol = reproduction.Protocol(
        seeds=tuple(numbers(seeds, int, "--seeds")),
        splits=tuple(numbers(split, int, "--split")),
        epochs=epochs,
        preset=preset,
        values=read_assignments(assignments or []),
        data=reproduction.choose_data([] if data is None else [name.strip() for name in data.split(",")], wanted),
    )

    def shards_of(source: str, name: str) -> list[Shard]:
        return [Shard.open(path) for path in shard_paths(name, protocol.splits if source == "rgbd" else (), root)]

    plan = reproduction.plan(wanted, shards_of, protocol, root / "runs")
    todo = make_stacks(plan.all(), stack or (16 if scheduler or where.type == "cuda" else 1))
    if dry_run:
        console.planned(plan.all(), todo, as_json)
        return
    folder = folder or root / "results" / protocol.name()
    reproduction.check_folder(plan, folder)
    with lease(*reproduction.outputs(wanted, folder)) if todo else nullcontext():
        runner.remove_leftovers([folder, *(one.folder for one in plan.all())])
        try:
            with console.watching() as progress, console.finishing(todo) as finished, parts.time_limit(time_limit):
                failures = parts.train_stacks(todo, device, progress, jobs=jobs, scheduler=scheduler, finished=finished)
        finally:  # what there is, also where it stopped
            outcomes = [reproduction.measure(plan, experiment, where) for experiment in wanted]
            outcomes = [
                reproduction.draw(plan, experiment, outcome, folder, where)
                for experiment, outcome in zip(wanted, outcomes, strict=True)
            ]
            paths = [path for outcome in outcomes for path in reproduction.write(outcome, folder)]
            paths += [folder / outcome.figure for outcome in outcomes if outcome.figure is not None]
            console.outcomes(outcomes, paths, as_json)
    parts.raise_if_failed(failures)


if __name__ == "__main__":
    main()
