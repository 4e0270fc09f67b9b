"""`mmssl serve`."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands import messages
from commands.app import app
from commands.options import DATA, WORKSPACE, Device, DeviceOption, Root
from commands.run_folders import RunData, check_used, places
from pipeline.runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.shards.schema import Modality
    from pipeline.shards.shard import Shard

SERVER = "Server"
Host = Annotated[
    str,
    typer.Option(
        help="Address to listen on; any but this machine's own (127.0.0.1, localhost, ::1) needs a token.",
        rich_help_panel=SERVER,
    ),
]
Port = Annotated[
    int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for a free one.", rich_help_panel=SERVER)
]
Token = Annotated[
    str | None,
    typer.Option(
        envvar="MMSSL_TOKEN",
        help="Secret that a request must bring. Others on the machine can read a command line, not a variable.",
        rich_help_panel=SERVER,
    ),
]


@app.command()
def serve(
    model: Annotated[Path, typer.Argument(help="Folder of a bundle (mmssl export), or of a finished run.")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            help="Shard whose test rows can be picked on the page, and whose training rows are shown.",
            show_default="the run's own; none of a bundle",
            rich_help_panel=DATA,
        ),
    ] = None,
    upload_mb: Annotated[
        int, typer.Option("--upload-mb", min=1, max=1024, help="Most MB of a request.", rich_help_panel=SERVER)
    ] = 32,
    waiting: Annotated[
        int, typer.Option(min=1, max=10_000, help="Most requests that wait at once.", rich_help_panel=SERVER)
    ] = 128,
    data: RunData = None,
    device: DeviceOption = Device.auto,
    root: Root = WORKSPACE,
) -> None:
    """Serve a model: a page to try it on, and POST /predict for programs.

    Ctrl-C or SIGTERM stops it, once what was asked is answered.
    """
    check_installed("serve")
    check_access(host, token)
    from commands.encoders import locate, open_encoder
    from commands.serving_pictures import StorePictures
    from pipeline.shards.shard import Shard
    from trainer.inference.loaded_model import open_model
    from trainer.inference.loading import shard_of
    from trainer.serving.application import Server
    from trainer.serving.limits import Limits
    from trainer.serving.server import listen, run
    from trainer.training.run_folder import Run
    from trainer.training.run_listing import SETTINGS

    listening = listen(host, port)
    looked = places(data, root)
    is_run = (model / SETTINGS).exists()
    if data is not None and is_run:
        check_used(looked, model, {Run.open(model).settings.digest})
    loaded = open_model(model, device, open_encoder, locate, looked)
    shard = None
    if examples is not None:
        shard = Shard.open(examples)
        check_fits(shard, loaded.modalities, loaded.card.classes)
    elif is_run:
        shard = shard_of(Run.open(model, looked))
    limits = Limits(body=upload_mb * 2**20, waiting=waiting)
    server = Server(loaded, StorePictures(loaded, shard), shard, limits, token)

    def ready(address: str) -> None:
        messages.say(
            f"{loaded.card.dataset}: {loaded.card.model}, at {address}" + ("" if token is None else "/?token=...")
        )
        messages.say(f"for programs: {address}/api; Ctrl-C stops")
        messages.out.file.flush()

    run(server.application(), listening, ready)
    messages.say("stopped")


def check_installed(command: str) -> None:
    """Refuses where the optional libraries are missing.

    Raises:
        UsageError: one is.
    """
    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise UsageError(f"mmssl {command} needs {missing[0].replace('_', '-')}", "pip install 'mmssl[serve]'")


def check_access(host: str, token: str | None) -> None:
    """Refuses to be reached from elsewhere without a token.

    Raises:
        UsageError: the address is not this machine's own, and there is no token, or it is too short.
    """
    from trainer.serving.access import LEAST_TOKEN, LOOPBACK

    if token is None and host not in LOOPBACK:
        raise UsageError(
            f"--host {host} can be reached from other machines, so requests must bring a token",
            "--token SECRET, or MMSSL_TOKEN in the environment",
        )
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isalnum()):
        raise UsageError(
            f"the token is not {LEAST_TOKEN} or more letters and digits",
            "python3 -c 'import secrets; print(secrets.token_hex())' makes one",
        )


def check_fits(shard: "Shard", modalities: "Sequence[Modality]", classes: "Sequence[str]") -> None:
    """Refuses a shard whose rows the model cannot take.

    Raises:
        UsageError: it has none of the modalities, others of their names, or other classes.
    """
    widths = {m.name: m.width for m in shard.modalities}
    common = [m for m in modalities if m.name in widths]
    if not common or any(widths[m.name] != m.width for m in common) or not set(shard.classes) & set(classes):
        raise UsageError(
            f"--examples {shard.path}: its modalities or classes are not the model's",
            f"the model takes {', '.join(f'{m.name} ({m.width} values)' for m in modalities)}",
        )
