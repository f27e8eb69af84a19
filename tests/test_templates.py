"""Several templates of one target: when the tracker cuts the second, and what the model does with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import fermt
import fermt_kernels as fk
from fermt.data import crop_target, normalize
from fermt.export import plain_model
from fermt.tracking.network import ModuleNetwork, hann_window

from .support.errors import refused
from .support.packed import small_model
from .support.tracking import Scripted, follow, noise, rows

IMAGE = noise(200, 300)
BOX = (100.0, 80.0, 40.0, 30.0)
OTHER = (150.0, 100.0, 25.5, 44.25)
# Whether template queries, then search queries, see template keys and search keys.
SEEN = {
    "self": ((True, False), (False, True)),
    "mixed": ((True, False), (True, True)),
    "full": ((True, True), (True, True)),
    "one_way_cross": ((False, False), (True, False)),
    "cross": ((False, True), (True, False)),
}


def template(box: tuple[float, ...], image: np.ndarray = IMAGE) -> np.ndarray:
    return crop_target(image, box, Scripted.template_factor, Scripted.template_size).image


def test_a_second_template_is_cut_when_it_is_due_and_the_score_allows() -> None:
    scores = [0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.7, 0.9, 0.1, 0.9, 0.1, 0.9, 0.9]
    due = [2, 6, 9, 12]  # frames 3, 6, ...; the sixth is not good enough, the seventh is
    network = Scripted(rows(scores))
    tracker = follow(network, refresh_every=3, refresh_above=0.6, lost_below=0.3, patience=2)
    tracker.init(IMAGE, BOX)
    images = [noise(200, 300, seed=i + 1) for i in range(len(scores))]
    boxes = [tracker.update(image).box for image in images]
    expected = [template(BOX), *(template(boxes[i], images[i]) for i in due)]
    assert len(network.templates) == len(expected)
    assert all(map(np.array_equal, network.templates, expected))
    second = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3]  # which it is in each frame; the first always stays
    assert network.seen == [[0, *([i] if i else [])] for i in second]
    tracker.reinit(IMAGE, OTHER)
    assert len(network.templates) == len(expected)
    tracker.init(IMAGE, BOX)
    assert np.array_equal(network.templates[-1], template(BOX))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_two_templates_are_the_model_called_by_hand(dtype: torch.dtype) -> None:
    model = fermt.build_model("fermt", patterns=("mixed", "cross"), dim=48, num_heads=3).to(dtype).eval()
    tracker = fermt.Tracker(model, refresh_every=2, refresh_above=0.0)
    assert isinstance(tracker.network, ModuleNetwork)
    seen: list[int] = []
    for block in model.backbone.blocks:
        block.attn.register_forward_hook(lambda module, inputs, output: seen.append(inputs[1]))
    tracker.init(IMAGE, BOX)
    tracks = [tracker.update(IMAGE) for _ in range(3)]
    assert seen == [64] * 4 + [128] * 2
    second = crop_target(IMAGE, tracks[1].box, 2.0, 128).image
    first = crop_target(IMAGE, BOX, 2.0, 128).image
    region = crop_target(IMAGE, tracks[1].box, 4.0, 256)
    crops = [normalize(image, dtype=dtype) for image in (first, second, region.image)]
    with torch.inference_mode():
        maps = model(torch.stack(crops[:2], dim=1), crops[2])
        alone = model(crops[0], crops[2])
    (found,) = fk.frame.decode(maps, hann_window(16).to(dtype)).tolist()
    by_hand = follow(Scripted([tuple(found)]))
    by_hand.network.search_size = 256
    by_hand.init(IMAGE, tracks[1].box)
    assert tracks[2] == by_hand.update(IMAGE)
    assert not torch.equal(maps["score_map"], alone["score_map"])


def test_a_packed_model_has_one_template() -> None:
    packed = fk.frame.pack(small_model("center"))
    for kind in (fermt.Tracker, fermt.MultiTracker):
        with refused(ValueError, "refresh_every"):
            kind(packed, refresh_every=5)
        with refused(ValueError, torch.bfloat16, "refresh_every"):
            kind(small_model("center"), refresh_every=5, dtype=torch.bfloat16)


@pytest.mark.parametrize("head", ["center", "corner"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_model_itself_in_half_precision(head: str, dtype: torch.dtype) -> None:
    """The heads answer in float32, and boxes keep it: bfloat16 would move them in 256ths of the region."""
    model = fermt.build_model(small_model(head).config, backend="reference").to(dtype).eval()
    tracker = fermt.Tracker(model)
    network = tracker.network
    assert isinstance(network, ModuleNetwork)
    crop = noise(network.search_size, network.search_size)
    with torch.inference_mode():
        encoded = network.encode(noise(network.template_size, network.template_size))
        found = network.locate([[encoded]], crop[None])
        expected = fk.frame.decode(model(encoded, normalize(crop, dtype=dtype)), hann_window(4).to(dtype))
    assert torch.equal(found.double(), expected.double())
    assert not torch.equal(found.to(dtype).double(), found.double())
    tracker.init(IMAGE, BOX)
    assert 0 < tracker.update(IMAGE).score < 1


def attend(qkv: Tensor, heads: int, n: int, pattern: str) -> Tensor:
    """Attention under a dense mask, template first: (B, N, 3 C) -> (B, N, C)."""
    batch, tokens, width = qkv.shape
    q, k, v = qkv.view(batch, tokens, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    group = (torch.arange(tokens) >= n).long()
    mask = torch.tensor(SEEN[pattern])[group][:, group]  # (queries, keys)
    scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)  # where nothing is seen, nothing comes out
    return (weights @ v).transpose(1, 2).flatten(2)


def by_dense_attention(model: fermt.FERMT, templates: Tensor, search: Tensor) -> Tensor:
    """Tokens after the last norm, each template embedded by itself."""
    backbone = model.backbone
    pictures = [*templates.unbind(1), search]
    places = [backbone.pos_embed_z] * templates.shape[1] + [backbone.pos_embed_x]
    tokens = [backbone.patch_embed(backbone.dau(x)) + place for x, place in zip(pictures, places, strict=True)]
    n, x = sum(part.shape[1] for part in tokens[:-1]), torch.cat(tokens, dim=1)
    for block, pattern in zip(backbone.blocks, model.config.patterns, strict=True):
        attention = attend(block.attn.qkv(block.norm1(x)), model.config.num_heads, n, pattern)
        x = x + block.attn.proj(attention)
        hidden = F.gelu(block.mlp.fc1(block.norm2(x)))
        x = x + block.mlp.fc2(hidden)
    return backbone.norm(x)


@pytest.fixture(scope="module")
def every_pattern() -> fermt.FERMT:
    """A model with all patterns, at the size whose templates have 64 tokens, in float64."""
    torch.manual_seed(0)
    model = fermt.build_model("fermt", patterns=tuple(SEEN), dim=48, num_heads=3).double().eval()
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if parameter.dim() > 1 and "blocks" in name:
                parameter *= 8  # so that what attention adds is seen
    return model


def pictures(count: int, templates: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(count, templates, 3, 128, 128, dtype=torch.float64, generator=generator)
    return z, torch.randn(count, 3, 256, 256, dtype=torch.float64, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 3])
def test_templates_are_so_many_more_tokens(every_pattern: fermt.FERMT, count: int) -> None:
    z, x = pictures(2, count)
    outputs, expected = every_pattern(z, x), by_dense_attention(every_pattern, z, x)
    assert expected.shape == (2, 64 * count + 256, 48)
    torch.testing.assert_close(outputs["tokens"], expected, rtol=1e-10, atol=1e-10)
    for name, value in every_pattern.box_head(expected).items():
        torch.testing.assert_close(outputs[name], value, rtol=1e-10, atol=1e-10)
    assert outputs["pred_boxes"].shape == (2, 1, 4)
    for name, value in plain_model(every_pattern)(z, x).items():
        torch.testing.assert_close(outputs[name], value, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_one_template_in_either_form_and_several_in_either_order(every_pattern: fermt.FERMT) -> None:
    z, x = pictures(1, 2)
    one, same = every_pattern(z[:, :1], x), every_pattern(z[:, 0], x)
    assert all(torch.equal(one[name], same[name]) for name in same)
    both, swapped = every_pattern(z, x), every_pattern(z.flip(1), x)
    torch.testing.assert_close(both["score_map"], swapped["score_map"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(both["tokens"][:, :64], swapped["tokens"][:, 64:128], rtol=1e-10, atol=1e-10)
    assert (both["score_map"] - one["score_map"]).abs().max() > 1e-6


@pytest.mark.parametrize(
    "shape", [(1, 0, 3, 16, 16), (1, 2, 3, 16, 32), (1, 2, 1, 16, 16), (1, 1, 2, 3, 16, 16)], ids=str
)
def test_templates_of_another_form(shape: tuple[int, ...]) -> None:
    with refused(ValueError, "template", "(B, 3, 16, 16)", "(B, T, 3, 16, 16)", shape):
        small_model("center")(torch.zeros(shape), torch.zeros(1, 3, 32, 32))
    with refused(ValueError, "search", "(B, 3, 32, 32)", (1, 1, 3, 32, 32)):
        small_model("center")(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 3, 32, 32))
