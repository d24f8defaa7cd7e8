"""WebDataset shards: tar files whose members of one name, such as `000.jpg` and `000.txt`, are a sample.

They are local files, addresses of object stores, which are fetched first (`remote`), or URLs of `SCHEMES`, which the
`webdataset` package opens. A shard that ends in the middle
gives the samples before that place; what was left out is counted.
"""

import logging
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from ovtool.errors import InputError, UsageError
from ovtool.formats import remote, strict_json

SCHEMES = ("file", "http", "https", "ftps", "sftp", "scp", "s3", "gs", "hf")
# what a shell could read as more than a part of an address: old releases of webdataset start one for `curl`
_UNSAFE = frozenset(" '\"`$\\|;<>(){}") | {chr(code) for code in (*range(32), 127)}
IMAGES = ("jpg", "jpeg", "png", "webp")
CAPTION, RECORD = "txt", "json"  # a text, or an object with a `caption`
MAX_SHARDS = 1_000_000
_MOST_BEYOND = 16  # reads behind the end of a stream
MAX_BYTES = 1 << 28  # of a member; a larger one is passed over
_META = re.compile(r"__[^/]*__($|/)")  # members that webdataset keeps for itself
_BRACES = re.compile(r"\{([^{}]*)\}")
_logger = logging.getLogger("ovtool")


@dataclass(frozen=True, slots=True)
class Sample:
    """An encoded image and its caption; `name` says where they came from."""

    name: str
    image: bytes
    caption: str


@dataclass
class Left:
    """What was left out on the way: samples by reason (`no image`, `no caption`, `broken image`), and the
    shards that ended in the middle."""

    samples: Counter[str] = field(default_factory=Counter)
    cut: dict[str, str] = field(default_factory=dict)


def is_shards(spec: str) -> bool:
    """Whether a SPEC names shards: `{00000..00331}`, or a name that ends as a tar file's does."""
    return "{" in spec or spec.endswith((".tar", ".tar.gz", ".tgz"))


def is_local(url: str) -> bool:
    """Whether a shard is a file of this machine."""
    return ":" not in url.partition("/")[0]


def expand(spec: str) -> list[str]:
    """The shards that a SPEC names, in its order.

    Raises UsageError for an address that webdataset would open by a command of its own, such as
    `pipe:`, and InputError where `webdataset` is not installed, or where a file is not there.
    """
    if _most(spec) > MAX_SHARDS:
        raise UsageError(
            f"{spec!r:.80} names more than {MAX_SHARDS:,} shards; give fewer in one run"
        )
    urls = [str(url) for url in _webdataset().shardlists.expand_urls(spec)]
    for url in urls:
        _check_address(url)
    missing = [url for url in urls if is_local(url) and not Path(url).is_file()]
    if missing:
        raise InputError(
            f"no such shard: {missing[0]} ({len(missing)} of the {len(urls)} that {spec} names)"
        )
    return urls


def _most(spec: str) -> int:
    """At least as many shards as the braces of a SPEC stand for, without naming them."""
    total, group = 1, _BRACES.search(spec)
    while group is not None:
        ends = group[1].split("..")
        if len(ends) > 1 and all(end.lstrip("-").isdecimal() for end in ends[:2]):
            step = abs(int(ends[2])) if len(ends) > 2 and ends[2].isdecimal() else 1
            total *= abs(int(ends[1]) - int(ends[0])) // (step or 1) + 1
        else:
            total *= 26 if len(ends) > 1 else group[1].count(",") + 1
        spec = spec[: group.start()] + spec[group.end() :]
        group = _BRACES.search(spec)
    return total


def _check_address(url: str) -> None:
    """Raise UsageError unless a shard is a file or has an address of `SCHEMES`.

    The scheme is read as webdataset reads it, so that neither capitals nor a space before it hide it.
    """
    try:
        scheme = urlparse(url).scheme
    except ValueError as error:
        raise UsageError(f"the shard {url!r:.80} has no address: {error}") from None
    if scheme and scheme not in (*SCHEMES, *remote.SCHEMES):
        reason = "runs a command" if scheme == "pipe" else "is not opened"
        raise UsageError(
            f"the shard {url!r:.80} {reason}; give files or addresses that begin with "
            f"{', '.join(SCHEMES[1:-1])} or {SCHEMES[-1]}, or fetch the shards first"
        )
    if scheme not in ("", "file") and not _UNSAFE.isdisjoint(url):
        raise UsageError(
            f"the address {url!r:.80} holds characters that a shell reads; write them as %20, %27 and so on"
        )


def read(url: str, left: Left) -> Iterator[Sample]:
    """The samples of a shard in its order; those without an image or a caption are counted in `left`.

    A shard that ends in the middle is told in one warning. Raises UsageError as `expand`, and InputError
    for one that gives nothing: no tar file, an address that does not answer.
    """
    _check_address(url)
    problems: list[Exception] = []

    def go_on(error: Exception) -> bool:
        problems.append(error)
        return True

    given = 0
    tars = _webdataset().tariterators
    place = str(remote.local(url)) if remote.address(url) else url
    opened = list(tars.url_opener([{"url": place}], handler=go_on))
    for shard in opened:
        shard["stream"] = _Watched(shard["stream"])
    files = (file for shard in opened for file in _files(shard["stream"], url, problems))
    for members in tars.group_by_keys(files, handler=go_on):
        given += 1
        sample = _sample(url, members, left)
        if sample is not None:
            yield sample
    if not problems and url.endswith(".tar") and any(opened[0]["stream"].last):
        problems.append(EOFError("no end of the archive"))  # which tarfile does not mind
    if not problems:
        return
    reason = str(problems[0].args[0] if problems[0].args else problems[0]).split(" @ ")[0]
    if not given:
        raise InputError(f"cannot read the shard {url} ({reason}); give one that is a tar file")
    if url not in left.cut:
        left.cut[url] = reason
        _logger.warning(
            "%s ends in the middle (%s): its first %d samples are used; fetch it again for the rest",
            url,
            reason,
            given,
        )


def _files(stream: Any, url: str, problems: list[Exception]) -> Iterator[dict[str, Any]]:
    """The members of a shard as webdataset groups them, an empty one at the end; what ends it early is added
    to `problems`. A header may claim any size, and a sparse member unpacks to it."""
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as shard:
            for member in shard:
                shard.members = []  # type: ignore[attr-defined]  # which tarfile would keep
                if not member.isreg() or member.issparse() or member.size > MAX_BYTES:
                    continue
                content = shard.extractfile(member)
                if content is not None and not _META.match(member.name):
                    yield {"fname": member.name, "data": content.read(), "__url__": url}
    except Exception as error:  # each kind of compression has its own
        problems.append(error)
    yield {}


class _Watched:
    """A stream that remembers its last 512 bytes, which are zeros where a tar archive ends.

    A member that claims to be larger than the rest of the stream is passed over block by block: `read` raises
    EOFError where that would go on behind the end.
    """

    def __init__(self, stream: Any) -> None:
        self.stream, self.last, self.beyond = stream, b"", 0

    def read(self, size: int = -1) -> bytes:
        content: bytes = self.stream.read(size)
        self.beyond = 0 if content else self.beyond + 1
        if self.beyond > _MOST_BEYOND:
            raise EOFError("a member is cut off")
        self.last = (self.last + content)[-512:]
        return content


def count(urls: Sequence[str]) -> int:
    """How many samples with an image and a caption local shards name, by their headers alone."""
    total = 0
    for url in urls:
        kinds: dict[str, set[str]] = {}
        try:
            with tarfile.open(url) as shard:
                for member in shard:
                    key, _, ending = member.name.rpartition("/")[2].partition(".")
                    folder = member.name.rpartition("/")[0]
                    kinds.setdefault(f"{folder}/{key}", set()).add(ending.lower())
        except Exception:  # each kind of compression has its own, and `read` says so
            pass
        total += sum(
            bool(suffixes & set(IMAGES)) and bool(suffixes & {CAPTION, RECORD})
            for suffixes in kinds.values()
        )
    return total


def _sample(url: str, members: dict[str, Any], left: Left) -> Sample | None:
    image = next((members[ending] for ending in IMAGES if ending in members), None)
    if image is None:
        left.samples["no image"] += 1
        return None
    caption = _caption(members)
    if not caption:
        left.samples["no caption"] += 1
        return None
    return Sample(f"{url}: {members['__key__']}", image, caption)


def _caption(members: dict[str, Any]) -> str:
    """The caption of a sample, empty where it has none."""
    if CAPTION in members:
        return str(members[CAPTION].decode("utf-8", "replace")).strip()
    try:
        content = strict_json.loads(members.get(RECORD, b"{}").decode())
    except ValueError:
        return ""
    caption = content.get("caption") if isinstance(content, dict) else None
    return caption.strip() if isinstance(caption, str) else ""


def _webdataset() -> Any:
    try:
        import webdataset
        import webdataset.shardlists
        import webdataset.tariterators
    except ImportError:
        raise InputError(
            "shards need the package webdataset; install it with `pip install 'ovtool[shards]'`"
        ) from None
    return webdataset
