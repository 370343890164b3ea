"""`mast3r_ros checkpoint`: get, convert, inspect and export networks."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.common import messages, note, print_facts, print_json, progress
from mast3r_ros.cli.options import JsonOption

if TYPE_CHECKING:
    from mast3r_ros.network.checkpoint import CheckpointInfo

app = typer.Typer(help="Get, convert, inspect and export networks.", no_args_is_help=True)

#: What `download` gets without a name.
DEFAULT_NAME = "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"


class WeightsSource(str, Enum):
    """Publishers of the official files."""

    HUGGINGFACE = "huggingface"
    NAVERLABS = "naverlabs"


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="Published name; 'list' names them all.")] = DEFAULT_NAME,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; by default <name> in ~/.cache/mast3r_ros or $MAST3R_ROS_CACHE."),
    ] = None,
    source: Annotated[
        WeightsSource,
        typer.Option(help="huggingface gives safetensors that are used as they are, naverlabs a .pth to convert."),
    ] = WeightsSource.HUGGINGFACE,
    mirror: Annotated[str | None, typer.Option(help="Base address of your own copy of the publisher's files.")] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", "--accept-license", help="I have read the weights' licence and accept.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Download an official checkpoint. The weights carry a licence of their own, which you must accept.

    A download that broke off is resumed by running the command again.
    """
    from mast3r_ros.network.config import PUBLISHED
    from mast3r_ros.network.download import cache_folder, download_checkpoint, remote_files

    if name == "list":
        print_json(list(PUBLISHED)) if json else print("\n".join(PUBLISHED))
        return
    remote_files(name, source.value, mirror)  # a wrong name is told before anything is asked
    _ask_for_consent(accept_licence)
    folder = cache_folder() / name if output is None else output.expanduser()
    with progress(f"downloading {name} (MiB)") as show:
        info = download_checkpoint(
            name,
            folder,
            source=source.value,
            mirror=mirror,
            progress=lambda done, total: show(done >> 20, total >> 20),
        )
    _print(info, json)
    if info.layout == "official":
        note(f"convert it once: mast3r_ros checkpoint convert {info.path} -o {info.path.with_suffix('.safetensors')}")
    else:
        note(f"use it: --matcher {'mast3r' if info.config.has_descriptors else 'dust3r'} --checkpoint {folder}")


def _ask_for_consent(accepted: bool) -> None:
    """Raises CheckpointError unless the licence was accepted on the command line or is accepted now."""
    from mast3r_ros.errors import CheckpointError
    from mast3r_ros.network.download import NOTICE

    messages.print(NOTICE, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if accepted:
        return
    if sys.stdin.isatty() and messages.is_terminal and typer.confirm("Do you accept this licence?", err=True):
        return
    raise CheckpointError("the licence of the weights was not accepted (--accept-licence): nothing was downloaded")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Official .pth file, or a folder in the Hugging Face layout.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File *.safetensors; its architecture goes into *.json beside it.")
    ],
    json: JsonOption = False,
) -> None:
    """Turn an official checkpoint into safetensors, the only kind that nodes load. Nothing in the file is executed."""
    from mast3r_ros.network.checkpoint import convert_checkpoint

    _print(convert_checkpoint(source, output), json)
    note(f"use it: --checkpoint {output}")


@app.command()
def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="Any layout: .safetensors, Hugging Face folder, .pth.")],
    json: JsonOption = False,
) -> None:
    """Say what is in a checkpoint, and whether it is whole. Nothing in the file is executed."""
    from mast3r_ros.network.checkpoint import inspect_checkpoint

    _print(inspect_checkpoint(checkpoint), json)


@app.command("export-onnx")
def export_onnx(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Converted .safetensors or Hugging Face folder; by default our small network.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the graphs and network.json.")] = Path(
        "onnx"
    ),
    width: Annotated[int, typer.Option(min=0, help="Of the images in pixels; 0: as in training.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="Of the images in pixels; 0: as in training.")] = 0,
    json: JsonOption = False,
) -> None:
    """Write encoder, decoder and heads as ONNX graphs, for TensorRT and others, each checked against PyTorch.

    Graphs are float32, of one image size and any batch. docs/networks.md says how TensorRT takes them.
    """
    from mast3r_ros.errors import CheckpointError
    from mast3r_ros.network.checkpoint import inspect_checkpoint, load_model
    from mast3r_ros.network.onnx_export import export_onnx as export
    from mast3r_ros.network.shipped import shipped_checkpoint

    source = checkpoint or shipped_checkpoint()
    if source is None:
        raise CheckpointError("the small network is not part of this installation: name a checkpoint")
    network, info = load_model(source), inspect_checkpoint(source)
    size = (height or info.config.img_size[0], width or info.config.img_size[1])
    record = {"checkpoint": {"file": source.name, "sha256": info.sha256}, "licence": info.licence}
    with progress("exporting", None) as show:
        written = export(network, output, size, record, lambda stage, done, total: show(done, total, stage))
    if json:
        print_json(written | {"folder": str(output)})
        return
    differences = {graph["file"]: f"differs from PyTorch by {graph['difference']:.1e}" for graph in written["graphs"]}
    print_facts(f"ONNX graphs in {output}, {size[1]}x{size[0]}", differences)
    note(f"names and shapes: {output / 'network.json'}; licence: {info.licence}")


def _print(info: CheckpointInfo, json: bool) -> None:
    total = sum(info.parameters.values())
    if json:
        print_json(
            {
                "path": str(info.path),
                "layout": info.layout,
                "architecture": info.architecture,
                "matcher": "mast3r" if info.config.has_descriptors else "dust3r",
                "config": info.config.to_json(),
                "parameters": {**info.parameters, "total": total},
                "dtypes": list(info.dtypes),
                "bytes": info.bytes,
                "sha256": info.sha256,
                "intact": info.intact,
                "licence": info.licence,
            }
        )
        return
    config = info.config
    size = "x".join(str(side) for side in reversed(config.img_size))
    intact = {True: "as it was converted", False: "CHANGED since it was converted", None: "no record to compare with"}
    print_facts(
        f"Checkpoint {info.path}",
        {
            "network": info.architecture or ("MASt3R" if config.has_descriptors else "DUSt3R") + ", not published",
            "layout": info.layout,
            "encoder": f"{config.enc_depth} layers of {config.enc_embed_dim}, {config.enc_num_heads} heads",
            "decoders": f"2 x {config.dec_depth} layers of {config.dec_embed_dim}, {config.dec_num_heads} heads",
            "head": config.head_type + (f", descriptors of {config.desc_dim}" if config.has_descriptors else ""),
            "trained for": f"{size} pixels",
            "parameters": f"{total:,} (" + ", ".join(f"{part} {n:,}" for part, n in info.parameters.items()) + ")",
            "stored as": f"{', '.join(info.dtypes)}, {info.bytes / 2**20:.1f} MiB",
            "SHA-256": info.sha256,
            "file": intact[info.intact],
            "licence": info.licence,
        },
    )
