"""Changes to a Sensorium folder, and a zip of it."""

import zipfile

import numpy as np


def change(folder, name, make):
    np.save(folder / f"{name}.npy", make(np.load(folder / f"{name}.npy")))


def zipped(folder, path, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + str(file.relative_to(folder)))
    return path
