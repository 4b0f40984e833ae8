"""Stands in for the build backend of the llama-cpp-python sdist while `pip download` fetches it.

pip wants the name and version of an sdist before it saves it, and would install a build backend and run it for
that. We only want the archive, whose hash is pinned, so this answers with what pip already knows.
"""

import os
import pathlib


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["SLUICE_SDIST_NAME"], os.environ["SLUICE_SDIST_VERSION"]
    info = pathlib.Path(metadata_directory) / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return info.name
