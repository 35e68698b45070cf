"""Every parser that sees outside data: arbitrary and mutated input gives a value or the documented error, no other."""

import io
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, from_dtype
from PIL import Image

from tests.builders.annotations import CONTROL, SIZE, masked
from tests.hierarchy.test_cut_tree import ROW, random_tree
from walkcut.bulk.sources.scan import read_sources
from walkcut.errors import (
    BrushError,
    GranularityError,
    ImageDecodeError,
    ImageFetchError,
    LabelConfigError,
    RequestError,
    SettingsError,
    TreeFileError,
)
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments, Threshold, Walk, parse_granularity
from walkcut.images import DecodeLimits, Fetcher, FetchPolicy, LabelStudioAccess, decode, redact
from walkcut.labelstudio import (
    Task,
    annotated_image_names,
    annotated_regions,
    brush,
    label_map,
    parse_brush_controls,
    read_extra_params,
    read_object,
    read_prompts,
    read_submission,
    read_tasks,
    region_id,
    select_annotation,
    text_commands,
)

ROOT = Path(__file__).parents[2]
LIMITS = DecodeLimits(max_pixels=1_000_000)


@dataclass(frozen=True)
class Parser:
    """A parser, what is fed to it, and the errors that it documents."""

    name: str
    parse: Callable[[Any], object]
    fed: st.SearchStrategy[Any]
    errors: tuple[type[Exception], ...] = ()
    examples: int = 200

    def check(self, value: Any) -> None:
        with suppress(*self.errors):
            self.parse(value)


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """A sample with bytes changed, pieces cut out, repeated or taken from another sample, or its end cut off."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 6))):
        start, stop = sorted(round(draw(st.floats(0, 1)) * len(data)) for _ in range(2))
        match draw(st.sampled_from(["change", "flip", "cut", "repeat", "splice", "end"])):
            case "change":
                data[start : start + 8] = draw(st.binary(max_size=8))
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start : min(stop, start + 64)]
            case "repeat":
                data[start:start] = data[start:stop][:256] * draw(st.integers(1, 4))
            case "splice":
                data[start:stop] = draw(st.sampled_from(samples))[start:stop]
            case "end":
                del data[stop:]
    return bytes(data)


def text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


# Images


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
IMAGES = [
    encode(IMAGE, "JPEG", exif=turned(6)),
    encode(IMAGE.convert("L"), "JPEG", progressive=True),
    encode(IMAGE.convert("CMYK"), "JPEG", icc_profile=b"x" * 200),
    encode(IMAGE.convert("RGBA"), "PNG", exif=turned(5)),
    encode(IMAGE.convert("P"), "PNG", transparency=3),
    encode(IMAGE.convert("1"), "PNG"),
    encode(IMAGE, "WEBP", exif=turned(3)),
    encode(IMAGE.convert("RGBA"), "WEBP", lossless=True),
    encode(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(90)]),
    encode(IMAGE.convert("P"), "GIF", transparency=2),
    encode(IMAGE.convert("L"), "GIF", save_all=True, append_images=[IMAGE.convert("L").rotate(90)]),
    encode(IMAGE, "BMP"),
    encode(IMAGE.convert("P"), "BMP"),
    encode(IMAGE, "TIFF", exif=turned(8)),
    encode(IMAGE.convert("F"), "TIFF"),
    encode(IMAGE.convert("P"), "TIFF", compression="packbits"),
    encode(IMAGE, "TIFF", compression="tiff_lzw"),
    encode(IMAGE.convert("L"), "TIFF", compression="jpeg"),
    encode(IMAGE, "PPM"),
    encode(IMAGE.convert("1"), "PPM"),
    encode(IMAGE.convert("F"), "PPM"),
]
SIGNATURES = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF89a", b"BM", b"II*\0", b"MM\0+", b"P5 ", b"Pf "]


def make_image(data: bytes) -> None:
    found = decode(data, LIMITS)
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert found.shape[0] * found.shape[1] <= LIMITS.max_pixels


# Label Studio's documents

CONFIGS = [path.read_bytes() for path in sorted((ROOT / "labelstudio_config").glob("*.xml"))]
TAGS = st.lists(
    st.sampled_from(
        ["<View>", "</View>", '<Image name="image" value="$photo"/>', '<BrushLabels name="b" toName="image"',
         '<Label value="A"/>', '<TextArea name="t" toName="image"/>', "</BrushLabels>", ">", "/>", "&#0;", "&a;",
         "<!--", "-->", "<![CDATA[", "]]>", '<!DOCTYPE v [<!ENTITY a "b">]>', 'neutral="true"', "<?x?>", "\ud800", "\0"]
    ),
    max_size=30,
).map("".join)  # fmt: skip
NUMBER = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308])
ANY = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)
PLACE = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from([0, 12.5, 50, 100, 1000])
KIND = st.sampled_from(["brushlabels", "rectanglelabels", "ellipselabels", "polygonlabels", "keypointlabels"])
STROKE = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["add", "eraser"]) | ANY, "points": st.lists(PLACE) | ANY,
                  "relativePoints": st.lists(PLACE) | ANY, "strokeWidth": PLACE, "relativeStrokeWidth": PLACE},
)  # fmt: skip
VALUE = st.fixed_dictionaries(
    {kind: st.just(["Car"]) for kind in ("brushlabels", "rectanglelabels", "ellipselabels", "polygonlabels")}
    | {"keypointlabels": ANY | st.just(["Car"])},
    optional=dict.fromkeys(("x", "y", "width", "height", "rotation", "radiusX", "radiusY"), PLACE)
    | {"points": st.lists(st.tuples(PLACE, PLACE).map(list)) | ANY, "touches": st.lists(STROKE) | ANY,
       "rle": st.lists(st.integers(0, 255)) | ANY},
)  # fmt: skip
ITEM = st.fixed_dictionaries(
    {"type": KIND, "value": VALUE | ANY}, optional=dict.fromkeys(("id", "to_name", "original_width"), ANY)
)
RESULT = st.lists(ITEM | ANY, max_size=4) | ANY
ANNOTATION = st.fixed_dictionaries(
    {},
    optional={"id": ANY, "result": RESULT, "updated_at": ANY | st.datetimes().map(str), "was_cancelled": ANY,
              "parent_prediction": ANY},
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {}, optional={"id": ANY, "data": ANY | st.dictionaries(st.just("photo"), ANY), "drafts": st.lists(ANNOTATION) | ANY,
                  "annotations": st.lists(ANNOTATION) | ANY, "predictions": st.lists(ANNOTATION) | ANY},
)  # fmt: skip
BODIES = [
    json.dumps({"tasks": [{"id": 1, "data": {"photo": "a.jpg"}, "drafts": [{"result": [masked()]}]}], "project": "3.1",
                "params": {"context": {"result": [masked()]}}}).encode(),
    b'{"a": [1, -2.5e3, NaN, Infinity, true, null, "\\ud800\\u0000"], "a": {"b": [[[[]]]]}}',
    b"[" * 3000 + b"]" * 3000,
    b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"n": ' + b"9" * 5000 + b"}",
]  # fmt: skip


def tasks(body: Mapping[str, Any]) -> None:
    for task in read_tasks(body):
        assert isinstance(task, Task)
        with suppress(RequestError):
            region_id(task, CONTROL, task.reference(CONTROL))


def context(document: object) -> None:
    for prompt in read_prompts(document, CONTROL):
        assert region_id(Task(1, {"photo": "\ud800"}), CONTROL, prompt.id)
    for line in text_commands(document, CONTROL):
        assert isinstance(line, str)


def annotation(result: object) -> None:
    regions = annotated_regions(result, CONTROL, SIZE)
    assert all(region.mask.any() for region in regions)
    label_map(regions, SIZE)
    annotated_image_names(result)
    annotated_regions(result, None, SIZE, strict=True)


# Lists of images

LISTS = [
    b'["a.jpg", {"image": "b.png", "x": [1, 2]}, {"data": {"url": "https://h/c.jpg"}}, 5, null, {"image": ""}]',
    b'"//[::1]/a"\n{"image": "http://[::1]:80/a"}\n\n{"path": "gs://b/k"}\nnull\n{"file_name": "\\u0000\\ud800"}\n"gs://["\n',
    b'\xef\xbb\xbfimage,x\na.jpg,1\n"b\n.jpg",2\n,3\nazure-blob://a/b c\n',
]


def listed(named: tuple[str, bytes]) -> None:
    kind, content = named
    with NamedTemporaryFile(suffix=kind) as file:
        file.write(content)
        file.flush()
        list(read_sources([file.name]))


# Run-length codes

MASKS = [np.zeros(SIZE, bool), np.ones(SIZE, bool), np.eye(*SIZE, dtype=bool)]
CODES = [bytes(brush.encode(mask)) for mask in MASKS]
HEADER = CODES[0][:6]


def code(data: bytes) -> None:
    assert brush.decode(list(data), SIZE).shape == SIZE


# Cut trees

TREES = [ROW.to_bytes(), random_tree(0).to_bytes()]
GRANULARITIES = (Level.AUTO, Level.COARSE, Level.FINE, Segments(2), Threshold(0.4), Walk(2))


def stored(**changed: np.ndarray) -> bytes:
    """The file of a tree, some of its arrays replaced."""
    with np.load(io.BytesIO(TREES[1]), allow_pickle=False) as file:
        kept = {name: file[name] for name in file.files}
    written = io.BytesIO()
    np.savez(written, **(kept | changed))
    return written.getvalue()


DTYPES = st.sampled_from(
    ["?", "i1", "<i8", ">i8", "u1", "<u2", ">u2", "u8", "f2", "<f4", ">f4", "f8", "g", "c8", "U2", "S2", "M8[s]"]
)
ODD_ARRAYS = arrays(DTYPES, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
ARRAY_NAMES = ["format", "leaves", "joints", "costs", "cut", "levels", "degradations", "scores", "gram", "patches",
               "descriptors"]  # fmt: skip
NAMES = st.sampled_from(ARRAY_NAMES)
ODD_TREES = st.dictionaries(NAMES, ODD_ARRAYS, min_size=1, max_size=3).map(lambda changed: stored(**changed))


@st.composite
def recast(draw: st.DrawFn) -> bytes:
    """A tree file with arrays of other types, or some other numbers in them."""
    with np.load(io.BytesIO(TREES[1]), allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}
    changed = {}
    for name in draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=2)):
        dtype = draw(DTYPES.filter(lambda dtype: dtype[0] not in "SM"))
        array = found[name].astype(dtype if draw(st.booleans()) and found[name].dtype.kind != "U" else None)
        if array.size and draw(st.booleans()):
            array.flat[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from([0, 1]) | from_dtype(array.dtype))
        changed[name] = array
    return stored(**changed)


def tree(data: bytes) -> None:
    found = CutTree.from_bytes(data)
    for granularity in GRANULARITIES:
        labels = found.labels(granularity)
        assert labels.shape == found.size
        found.distinctness(granularity)


# References, and what web servers answer


def nobody(host: str, port: int) -> tuple[Any, ...]:
    raise OSError("no such host")


FETCHER = Fetcher(
    FetchPolicy(local_files_root=ROOT / "labelstudio_config"), LabelStudioAccess("http://ls/x"), resolve=nobody
)
REFERENCES = [
    b"http://ls/x/data/upload/1/a.jpg", b"/data/local-files/?d=../a.jpg", b"https://u:p@[::1%25a]:80/a?b#c", b"s3://b/k",
    b"data:image/png;base64,aGVsbG8=", b"/x/data/local-files?d=%2e%2e%2f%00&d=b", b"//h/a", b"azure-blob://a/b c",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npic\r\n4;x=y\r\nture\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Encoding: identity\r\n\r\nimage",
    b"HTTP/1.1 302 Found\r\nLocation: /a\r\n b\r\nLocation: http://[\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
]
OPEN = Fetcher(FetchPolicy(max_bytes=1000, timeout=2, max_redirects=2, allow_private_hosts=True), None)


def reference(value: object) -> None:
    redact(value)
    assert isinstance(FETCHER.fetch(value, 7), bytes)


def answer(data: bytes) -> bytes:
    """Fetch from a server that says this to whatever it is asked."""
    with ExitStack() as until_the_end:

        def connect(*_: object) -> socket.socket:
            ours, theirs = socket.socketpair()
            until_the_end.enter_context(theirs)
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            return ours

        with patch("walkcut.images.transport.socket.create_connection", connect):
            found = OPEN.fetch("http://127.0.0.1/a.jpg")
    assert len(found) <= 1000
    return found


def test_what_is_not_mutated_is_read() -> None:
    """Else the fuzz tests would find nothing."""
    assert [answer(data) for data in ANSWERS[:3]] == [b"image"] * 3
    for read, samples in ((make_image, IMAGES), (tree, TREES), (code, CODES)):
        for sample in samples:
            read(sample)
    for sample in CONFIGS:
        assert parse_brush_controls(sample.decode())
    assert read_object(BODIES[0])


PARSERS = [
    Parser("images", make_image, mutated(IMAGES), (ImageDecodeError,), 1500),
    Parser(
        "no images", make_image, st.tuples(st.sampled_from(SIGNATURES), st.binary()).map(b"".join), (ImageDecodeError,)
    ),
    Parser("label configs", parse_brush_controls, mutated(CONFIGS).map(text), (LabelConfigError,)),
    Parser("tags", parse_brush_controls, TAGS | st.text(st.characters()), (LabelConfigError,)),
    Parser("bodies", read_object, mutated(BODIES) | st.binary(), (RequestError,)),
    Parser("tasks", tasks, st.fixed_dictionaries({}, optional={"tasks": st.lists(TASK) | ANY}), (RequestError,), 50),
    Parser("extra parameters", read_extra_params, ANY | mutated(BODIES).map(text)),
    Parser(
        "submissions", lambda pair: read_submission(*pair), st.tuples(TASK | ANY, ANNOTATION | ANY), (RequestError,)
    ),
    Parser("contexts", context, st.fixed_dictionaries({}, optional={"result": RESULT}) | ANY, (RequestError,)),
    Parser("annotations", annotation, RESULT, (RequestError, BrushError)),
    Parser("exports", select_annotation, st.lists(TASK) | TASK | ANY, (SettingsError,), 50),
    Parser(
        "lists",
        listed,
        st.tuples(
            st.sampled_from([".json", ".jsonl", ".csv"]),
            mutated(LISTS) | st.lists(ANY).map(lambda rows: json.dumps(rows).encode()),
        ),
        (SettingsError,),
    ),
    Parser("run-length codes", code, mutated(CODES) | st.binary().map(lambda end: HEADER + end), (BrushError,)),
    Parser("tree files", tree, mutated(TREES) | st.binary(), (TreeFileError,)),
    Parser("odd trees", tree, ODD_TREES, (TreeFileError,)),
    Parser("recast trees", tree, recast(), (TreeFileError,), 400),
    Parser("granularities", parse_granularity, st.text() | st.from_regex(r"(tau|k|n) *= *\S*"), (GranularityError,)),
    Parser("references", reference, mutated(REFERENCES).map(text) | ANY, (ImageFetchError,)),
    Parser("answers", answer, mutated(ANSWERS) | st.binary(), (ImageFetchError,)),
]
each_parser = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


def fuzz(parser: Parser, profile: settings) -> None:
    profile(given(parser.fed)(parser.check))()


@pytest.mark.filterwarnings("ignore")  # Pillow and numpy warn of much that is damaged
@each_parser
def test_a_parser_gives_a_value_or_its_error(parser: Parser) -> None:
    fuzz(parser, settings(max_examples=parser.examples, suppress_health_check=list(HealthCheck)))


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@each_parser
def test_a_parser_gives_a_value_or_its_error_at_length(parser: Parser) -> None:
    long = settings(max_examples=50 * parser.examples, derandomize=False, suppress_health_check=list(HealthCheck))
    fuzz(parser, long)
