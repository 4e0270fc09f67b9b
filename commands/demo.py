"""`mmssl demo`: from nothing to a table and a page that show what happens when a camera fails."""

import shlex

from commands import messages, progress, tables
from commands.app import app
from commands.options import WORKSPACE, Device, DeviceOption, ReferenceOption, Root
from trainer.settings.names import PAPER, RECOMMENDED

_MODELS = (  # model, preset, title
    ("sshmvae-kl", RECOMMENDED, "SS-HMVAE-kl, recommended"),
    ("sshmvae-kl", PAPER, "SS-HMVAE-kl, the paper's"),
    ("sshmvae", PAPER, "SS-HMVAE, the paper's"),
)


@app.command()
def demo(device: DeviceOption = Device.auto, reference: ReferenceOption = True, root: Root = WORKSPACE) -> None:
    """Show what happens when a camera fails: from nothing to a page in minutes, without a download.

    The same command resumes after an interruption.
    """
    from commands.demo_page import demo_page
    from commands.demo_settings import DEMO, NAME
    from pipeline.datasets.locations import SAMPLE
    from pipeline.features.extract import extract
    from pipeline.images.preprocess import preprocess
    from pipeline.runtime.devices import choose_device
    from pipeline.runtime.files import write_if_changed
    from pipeline.sample.render import render
    from pipeline.shards.shard import Shard
    from trainer.baselines.references import add_references
    from trainer.jobs.plan import folders_of, plan
    from trainer.jobs.train import train_all
    from trainer.reporting.camera_page import html
    from trainer.reporting.run_tables import retitled, table

    chosen = choose_device(device)
    splits = ",".join(map(str, DEMO.splits))
    tables.demo_step(1, "renders a small RGB-D data set, without a real photograph", "mmssl data fetch washington-rgbd")
    with progress.counting("objects") as watch:
        render(
            root / "raw" / SAMPLE,
            categories=DEMO.categories,
            objects_per_category=DEMO.objects,
            views=DEMO.views,
            progress=watch,
        )
    tables.demo_step(
        2, f"makes images of {DEMO.images.size} x {DEMO.images.size}, depth as colours", "mmssl preprocess rgbd"
    )
    with progress.counting("objects") as watch:
        store = preprocess(SAMPLE, root, DEMO.images, progress=watch)
    tuned = f"fine-tuned for {DEMO.features.epochs} epochs" if DEMO.features.epochs else "not fine-tuned"
    tables.demo_step(
        3,
        f"takes fc1 of a VGG16 with RANDOM weights, {tuned}; {DEMO.features.labelled:.0%} of the training images keep "
        "their label (the paper: ImageNet weights, 200 epochs, 5%)",
        "mmssl extract --split 0..9",
    )
    with progress.extracting() as watch_features:
        paths = extract(
            SAMPLE,
            root,
            DEMO.splits,
            DEMO.images,
            DEMO.features,
            weights="random",
            name=NAME,
            device=device,
            progress=watch_features,
        )
    shards = [Shard.open(path) for path in paths]
    tables.demo_step(
        4,
        f"trains a model with our recommended settings, and two with the paper's, on splits {splits}",
        "mmssl train sshmvae-kl --data rgbd --split 0..9 --preset recommended",
    )
    jobs = [job for model, preset, _ in _MODELS for job in plan(model, shards, preset=preset)]
    with progress.watching() as watch_training:
        runs = train_all(jobs, folders_of(jobs, None, root / "runs"), chosen, watch_training)
    by_folder = {run.folder: job.shard for run, job in zip(runs, jobs, strict=True)}
    references = add_references(runs, lambda run: by_folder[run.folder]) if reference else {}
    results = retitled(table(runs, references=references), [title for _, _, title in _MODELS])
    tables.missing_cameras(results, len(shards[0].classes))
    page = root / "demo.html"
    write_if_changed(page, html(demo_page(runs, results, store, chosen)))
    messages.say_path(page)
    messages.say(f"to try the first model in a browser: {messages.own_name()} serve {shlex.quote(str(runs[0].folder))}")
