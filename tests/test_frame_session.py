"""A frame on a GPU and what it is wrapped in: graph, uploads, what it holds from call to call. All by stand-ins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import fermt_kernels as fk
from fermt_kernels.frame import cuda_graph, cuda_image, cuda_run

from .support.streams import HOST, Cuda, Memory, kernel


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    monkeypatch.setattr(cuda_graph, "torch", made.torch())
    return made


def test_a_graph_is_captured_once_after_a_run_beside_it(cuda: Cuda) -> None:
    memory, runs = Memory(cuda), []
    launch = kernel(cuda, [memory], [memory])

    def run() -> None:
        assert cuda.devices == ["cuda:1"]
        runs.append((cuda.stack[-1], cuda.capturing is not None))
        launch()

    captured = cuda_graph.Captured(run, "cuda:1")
    assert not runs
    for calls in range(1, 4):
        launch()  # of a caller, before and after
        captured()
        assert captured._graph.replays == calls
    (aside, warm), (beside, caught) = runs  # what compiles is not captured; neither is on the stream of the caller
    assert (aside != "default", warm, beside != "default", caught) == (True, False, True, True)
    assert len(memory.writes) == 1 + 1 + 2 * 3  # allocated; run beside; and each call's two


def test_uploads_are_in_order_and_wait_for_nothing_else(cuda: Cuda) -> None:
    target = Memory(cuda, (2, 4, 4, 3))
    frame = kernel(cuda, [target], [])
    kernel(cuda, [], [])()  # whatever ran before
    upload = cuda_graph.Upload(target)
    slots = upload._slots
    for turn in range(7):
        crops = Memory(cuda, on=HOST)
        crops.value = turn + 1
        host = dict(cuda.clocks[HOST])
        before = cuda.clocks["default"]["default"]
        upload(crops)
        slot = slots[turn % cuda_graph.SLOTS]
        assert [memory.value for memory in (slot.host, slot.device, target)] == [turn + 1] * 3
        # It runs beside the last frame, and the host waits for no frame and not for the last copy.
        if turn >= cuda_graph.SLOTS:
            assert slot.copied.clock["default"] < before
            assert cuda.clocks[HOST]["default"] < before
            assert cuda.clocks[HOST][upload._stream.name] == turn + 1 - cuda_graph.SLOTS
        assert host.get(HOST, 0) + 1 == cuda.clocks[HOST][HOST]
        frame()
        crops.value = -1  # the caller's again


class StandIn:
    """Answers as a frame would, and remembers what it was asked."""

    def __init__(self, weights: str, sizes: str, batch: int) -> None:
        assert (weights, sizes) == ("weights", "sizes")
        self.log: list[Any] = []
        self.templates, self.searches = (torch.zeros(batch, size, size, 3, dtype=torch.uint8) for size in (2, 4))
        self.squares = torch.zeros(batch, 3, dtype=torch.int64)
        maps, boxes, window = torch.zeros(batch, 5, 4, 4), torch.zeros(batch, 5), torch.ones(4, 4)
        self.head = SimpleNamespace(maps=maps, boxes=boxes, window=window)
        self.layers = SimpleNamespace(tokens=torch.zeros(batch, 16, 8))

    def encode(self) -> None:
        self.log.append("encode")

    def track(self) -> None:
        self.log.append("track")

    def track_image(self, image: Tensor, bgr: bool) -> None:
        self.log.append(("track", self.squares.clone(), image, bgr))

    def caches(self) -> Tensor:
        return self.templates.flatten(1).clone()

    def install(self, target: int, cache: Tensor) -> None:
        self.log.append((target, cache.tolist()))


class Recorded:
    """In the place of `Captured` and of `Upload`: what it was made of, and its calls."""

    def __init__(self, name: str, log: list[Any], made_of: Any) -> None:
        self.name, self.log, self.made_of = name, log, made_of

    def __call__(self, *arguments: Tensor) -> None:
        self.log.append(self.name)
        if callable(self.made_of):
            self.made_of()
        else:
            source, *part = arguments
            self.made_of[tuple(*part)].copy_(source)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Of graphs and uploads."""
    log: list[Any] = []
    monkeypatch.setattr(cuda_run.triton_backend, "make_frame", StandIn)
    monkeypatch.setattr(cuda_run, "Captured", lambda run, device: Recorded(f"graph on {device}", log, run))
    for module in (cuda_run, cuda_image):
        monkeypatch.setattr(module, "Upload", lambda target: Recorded("upload", log, target))
    gpu = SimpleNamespace(synchronize=lambda device: log.append(f"wait for {device}"))

    def on_the_cpu(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    standing_in = SimpleNamespace(cuda=gpu, empty=on_the_cpu, uint8=torch.uint8, inference_mode=torch.inference_mode)
    monkeypatch.setattr(cuda_image, "torch", standing_in)
    return log


def model_on(device: str) -> Any:
    return SimpleNamespace(weights="weights", sizes="sizes", device=torch.device(device))


def bytes_of(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.mark.usefixtures("calls")
def test_a_cache_is_installed_when_it_is_another() -> None:
    packed, workspace = model_on("cpu"), fk.frame.Workspace()
    encoded = cuda_run.encode(packed, bytes_of(2, 2, 2, 3), workspace)
    log = cuda_run._session(packed, 2, workspace).frame.log
    other, row, crops = bytes_of(2, 12), bytes_of(1, 12), bytes_of(2, 4, 4, 3)
    log.clear()
    for caches, installed in (
        (encoded, []),  # where they were encoded
        (other, [(0, other[0]), (1, other[1])]),
        (other, []),
        ([row, row[0]], [(0, row[0]), (1, row[0])]),
        ([row, row], [(1, row[0])]),
        (encoded, [(0, encoded[0]), (1, encoded[1])]),
        (encoded, []),
        (encoded.clone(), [(0, encoded[0]), (1, encoded[1])]),
    ):
        cuda_run.track(packed, caches, crops, workspace, tokens=False, window=None)
        assert log == [*((target, cache.tolist()) for target, cache in installed), "track"]
        log.clear()
    cuda_run.encode(packed, bytes_of(2, 2, 2, 3), workspace)
    cuda_run.track(packed, other, crops, workspace, tokens=False, window=None)
    assert log == ["encode", (0, other[0].tolist()), (1, other[1].tolist()), "track"]


@pytest.mark.usefixtures("calls")
def test_the_window_is_set_when_it_is_another() -> None:
    packed, workspace, crops = model_on("cpu"), fk.frame.Workspace(), bytes_of(1, 4, 4, 3)
    cache = bytes_of(1, 12)
    frame = cuda_run._session(packed, 1, workspace).frame
    for window in (None, torch.rand(4, 4), torch.rand(4, 4).double(), None):
        cuda_run.track(packed, cache, crops, workspace, tokens=False, window=window)
        assert torch.equal(frame.head.window, torch.ones(4, 4) if window is None else window.float())


def test_on_a_gpu_a_workspace_keeps_graphs(calls: list[Any]) -> None:
    packed, workspace, cache = model_on("cuda:1"), fk.frame.Workspace(), bytes_of(1, 12)
    for turn in range(2):
        template, search = bytes_of(1, 2, 2, 3), bytes_of(1, 4, 4, 3)
        cuda_run.encode(packed, template, workspace)
        assert calls == ["graph on cuda:1"]
        cuda_run.track(packed, cache, search, workspace, tokens=False, window=None)
        assert calls == ["graph on cuda:1", "upload", "graph on cuda:1"]
        session = cuda_run._session(packed, 1, workspace)
        assert session.frame.log == ["encode", (0, cache[0].tolist()), "track"] * (turn + 1)
        assert torch.equal(session.frame.templates, template)
        assert torch.equal(session.frame.searches, search)
        calls.clear()
    session.frame.searches = there = torch.empty(1, 4, 4, 3, dtype=torch.uint8, device="meta")
    session.track([(cache, 0)], torch.empty_like(there), None)
    assert calls == ["graph on cuda:1"]  # crops that are on the GPU already are not uploaded
    calls.clear()
    cuda_run.track(packed, cache, bytes_of(1, 4, 4, 3), None, tokens=False, window=None)
    cuda_run.encode(packed, bytes_of(1, 2, 2, 3), None)
    assert calls == []  # without a workspace a graph would be captured for one call


@pytest.mark.usefixtures("calls")
def test_a_workspace_knows_models_and_batches_apart() -> None:
    workspace, models = fk.frame.Workspace(), [model_on("cpu"), model_on("cpu")]
    sessions = [cuda_run._session(packed, batch, workspace) for packed in models for batch in (1, 2)]
    again = [cuda_run._session(packed, batch, workspace) for packed in models for batch in (1, 2)]
    assert sessions == again
    assert len(set(sessions)) == 4
    assert cuda_run._session(models[0], 1, None) not in sessions


def found_in(
    packed: Any, workspace: fk.frame.Workspace, image: Tensor, squares: list[list[int]], bgr: bool = False
) -> Any:
    """Tracks in an image; what the frame was asked last."""
    cache = bytes_of(12)
    cuda_run.track_image(packed, [cache] * len(squares), image, torch.tensor(squares), bgr, workspace, None)
    return cuda_run._session(packed, len(squares), workspace).frame.log[-1]


def test_a_graph_reads_an_images_squares_and_what_is_in_them(calls: list[Any]) -> None:
    packed, workspace, black = model_on("cuda:1"), fk.frame.Workspace(), torch.zeros(9, 12, 3, dtype=torch.uint8)
    seen = black.clone()
    for turn, (squares, rows, columns) in enumerate(
        (
            ([[2, 3, 4]], slice(3, 7), slice(2, 6)),
            ([[-3, -2, 4]], slice(0, 2), slice(0, 1)),
            ([[10, 7, 40]], slice(7, 9), slice(10, 12)),
            ([[-99, -99, 300]], slice(0, 9), slice(0, 12)),
        )
    ):
        image = torch.full_like(black, 10 + turn)
        seen[rows, columns] = image[rows, columns]
        what, got, pixels, bgr = found_in(packed, workspace, image, squares)
        assert (what, got.tolist(), bgr) == ("track", squares, False)
        assert torch.equal(pixels, seen)
        assert calls == ["upload", "upload", "graph on cuda:1"]
        calls.clear()
    found_in(packed, workspace, image, [[1, 2, 3], [6, 5, 2]])
    (rows, columns) = cuda_image._around(torch.tensor([[1, 2, 3], [6, 5, 2]]), 9, 12)
    assert (rows, columns) == (slice(2, 7), slice(1, 8))


def test_images_of_the_last_sizes_are_kept_with_their_graphs(calls: list[Any]) -> None:
    packed, workspace = model_on("cuda:1"), fk.frame.Workspace()
    sessions = [cuda_run._session(packed, batch, workspace) for batch in (1, 2)]
    waits = "wait for cuda:1"
    known: dict[tuple[int, int, bool], list[Any]] = {}
    for height, width, bgr, dropped in (
        (5, 6, False, []),
        (5, 6, True, []),
        (5, 6, False, []),  # known, and now the last
        (6, 5, False, [(5, 6, True)]),
        (5, 6, False, []),
        (5, 6, True, [(6, 5, False)]),
    ):
        key, calls[:] = (height, width, bgr), []
        read = [found_in(packed, workspace, bytes_of(height, width, 3), [[0, 0, 4]] * batch, bgr) for batch in (1, 2)]
        assert [each[3] for each in read] == [bgr] * 2
        assert read[0][2] is read[1][2]  # batch sizes share the memory
        assert calls.count(waits) == len(dropped)
        for each in dropped:
            del known[each]
        assert known.setdefault(key, read[0][2]) is read[0][2]
        assert [len(session._of_images) for session in sessions] == [len(known)] * 2
        assert len(known) <= cuda_image.SIZES


def test_what_is_on_the_gpu_is_neither_uploaded_nor_read_back(calls: list[Any]) -> None:
    """By tensors that have no data."""
    packed, workspace, cache = model_on("cuda:1"), fk.frame.Workspace(), bytes_of(1, 12)
    found_in(packed, workspace, bytes_of(5, 6, 3), [[0, 0, 4]])
    static = cuda_run._images(packed.device, workspace).of(5, 6, False)
    session = cuda_run._session(packed, 1, workspace)
    image, squares = bytes_of(5, 6, 3).to("meta"), torch.zeros(1, 3, dtype=torch.int32, device="meta")
    static.pixels, session.frame.squares = torch.empty_like(image), squares.long()
    calls.clear()
    static.put(image, torch.tensor([[0, 0, 4]]))
    cuda_run.track_image(packed, cache, image, squares, False, workspace, None)
    assert calls == ["graph on cuda:1"]
    static.put(bytes_of(5, 6, 3).to("meta"), squares)


@pytest.mark.usefixtures("calls")
def test_without_a_workspace_no_image_is_kept() -> None:
    packed = model_on("cpu")
    one, other = (cuda_run._images(packed.device, None).of(5, 6, False) for _ in range(2))
    assert one is not other
    boxes = cuda_run.track_image(
        packed, bytes_of(1, 12), bytes_of(5, 6, 3), torch.tensor([[0, 0, 4]]), True, None, None
    )
    assert boxes.shape == (1, 5)
