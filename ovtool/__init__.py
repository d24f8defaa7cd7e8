"""ovtool: images segmented by words, and the models that do it. `ovtool.stages` is the Python API."""


def __getattr__(name: str) -> str:
    """`ovtool.__version__`, looked up when asked for, so that `import ovtool` costs nothing."""
    if name != "__version__":
        raise AttributeError(f"module 'ovtool' has no attribute '{name}'")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ovtool")
    except PackageNotFoundError:
        return "0.0.0+source"  # a source tree that was not installed
