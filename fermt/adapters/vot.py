"""A TraX tracker for the VOT toolkit: `python -m fermt.adapters.vot --weights fermt.safetensors`.

It announces one object and rectangles; clients convert polygons and masks to their bounding rectangles.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..images import read_image
from .build import Source, toolkit, tracker_for

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
READERS = {  # converts TraX images to BGR or grayscale
    "path": lambda image: read_image(Path(image.path()))[..., ::-1],
    "memory": lambda image: image.array()[..., ::-1],
}


def serve(model: Source, **options: Any) -> None:
    """Serves the TraX client that started this process until it quits; scores are sent as `confidence`.

    Raises:
        ImportError: vot-trax cannot be imported.
        ValueError: an image cannot be read. The client gets this error and those of `fermt.Tracker`.
    """
    tracker = tracker_for(model, bgr=True, **options)
    trax = toolkit("trax", "vot-trax")
    with trax.Server([trax.Region.RECTANGLE], list(READERS), tracker_name="FERMT") as server:
        while (request := server.wait()).type != trax.TraxStatus.QUIT:
            sent = request.image["color"]
            image = READERS[sent.type()](sent)
            if request.type == trax.TraxStatus.INITIALIZE:
                box, score = request.objects[0][0].bounds(), 1.0
                tracker.init(image, box)
            else:
                box, score, _ = tracker.update(image)
            server.status([(trax.Rectangle.create(*box), {"confidence": score})])


@app.command()
def main(
    weights: Annotated[Path, typer.Option(help="Weights by fermt.save, or a packed model (.fermt).")],
    device: Annotated[
        str, typer.Option(help="Where to run: auto (a GPU if there is one), cpu, cuda, cuda:1 ...")
    ] = "auto",
) -> None:
    """Track for a TraX client, such as the VOT toolkit, that starts this command."""
    try:
        serve(weights, device=device)
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
