"""How often a picture is shown: at several sizes (`--scales`), and mirrored or not (`--flip`)."""

from ovtool.errors import UsageError

LEAST, MOST = 0.1, 10.0


def parse_scales(text: str | None) -> tuple[float, ...]:
    """The sizes that `--scales` means, as shares of the short side: "0.75,1,1.25"; None is (1.0,).

    Raises UsageError for what is no number of 0.1 to 10, and for a size that is named twice.
    """
    if text is None:
        return (1.0,)
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(LEAST <= scale <= MOST for scale in scales):
        raise UsageError(
            f"--scales '{text}' is no list of sizes of {LEAST:g} to {MOST:g}, such as 0.75,1,1.25"
        )
    if len(set(scales)) < len(scales):
        raise UsageError(f"--scales '{text}' names a size twice: name each once")
    return scales
