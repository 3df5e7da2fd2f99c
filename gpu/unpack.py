"""Lay an archive's data out as recipes and tests want it: the folder that NEUROPRIOR_DATA names.

    python gpu/unpack.py ARCHIVE_FOLDER DATA_FOLDER

Pixels, labels, names and order are those that were packed; the files' bytes are not (PNGs are written anew, at a fast
level of compression), so a file's digest differs from the original's.
"""

import io
import json
import lzma
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from codec import decode


def write_parquet(to: Path, pixels: np.ndarray, labels: np.ndarray, column: str) -> None:
    """Write the Hugging Face image layout, `img: {bytes, path}` and labels, with gray PNGs."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    encoded = []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG", compress_level=1)
        encoded.append(buffer.getvalue())
    paths = pa.nulls(len(encoded), pa.string())
    images = pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), paths], ["bytes", "path"])
    pq.write_table(pa.table({"img": images, column: pa.array(labels.astype(np.int64))}), to, compression="none")


def lay_out(archive: Path, folder: Path, entry: dict[str, Any]) -> Path:
    """Write one file of the data folder from the members that `entry` of the manifest names."""
    to = folder / entry["to"]
    to.parent.mkdir(parents=True, exist_ok=True)
    match entry["kind"]:
        case "parquet":
            labels = np.frombuffer(lzma.decompress((archive / entry["labels"]).read_bytes()), dtype=np.uint8)
            write_parquet(to, decode((archive / entry["pixels"]).read_bytes()), labels, entry["column"])
        case "npz":
            words = json.loads(lzma.decompress((archive / entry["words"]).read_bytes()))
            images = decode((archive / entry["pixels"]).read_bytes())
            np.savez(to, images=images, **{name: np.array(values) for name, values in words.items()})
        case "file":
            to.write_bytes(lzma.decompress((archive / entry["content"]).read_bytes()))
        case other:
            raise ValueError(f"MANIFEST.json: data of kind {other!r} is unknown; pack and run with the same commit")
    return to


def main() -> None:
    """Run from the command line."""
    archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        for entry in json.loads((archive / "MANIFEST.json").read_text())["data"]:
            start = time.perf_counter()
            to = lay_out(archive, folder, entry)
            print(f"{entry['to']}: {to.stat().st_size:,} bytes, {time.perf_counter() - start:.1f} s", flush=True)
    except (OSError, ValueError, KeyError, lzma.LZMAError) as error:
        sys.exit(f"unpack: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


if __name__ == "__main__":
    main()
