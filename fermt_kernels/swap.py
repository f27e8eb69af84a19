"""Puts the kernels into other people's models, in place, where that changes no result; and takes them out again."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch.nn as nn

from . import checks
from .backends import AUTO, requested
from .modules import DualAttentionUnit, Linear, PatchEmbed, TemplateSearchAttention
from .spec.dual_attention_unit import LEAVES
from .spec.patterns import PATTERNS
from .swapping.attention import BLOCK_NUMBER, TEMPLATE_GRID, SwappedAttention, attention_dropout, share_hooks
from .swapping.compare import BATCH, EXTRA_TOKENS, GRIDS, IMAGE_SIZES, SEQUENCES, Case, bare_copy, difference, redraw
from .swapping.recognize import attention_objection, is_attention, is_unit, linear_in, unit_objection

ATTENTION, UNIT = "attention", "dual attention unit"
# Wrappers under which a module's parameters are not its own.
SHARDING_WRAPPERS = ("FullyShardedDataParallel", "FSDPModule")


class Replacement(NamedTuple):
    """One module that `swap` met."""

    name: str  # its path in the model
    kind: str  # "attention" or "dual attention unit"
    done: bool
    detail: str  # the pattern; or, where nothing was replaced, why


class SwapReport(tuple[Replacement, ...]):
    """What `swap` replaced and what it refused; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        lines = [f"{'replaced' if row.done else 'refused':<9} {row.kind:<20} {row.name}: {row.detail}" for row in self]
        return "\n".join(lines)


class _Request(NamedTuple):
    """The arguments of `swap`, checked."""

    patterns: tuple[str, ...]  # one, one for each block, or none
    num_template: int | None
    backend: str
    ignore: frozenset[str]
    depth: int  # attentions in the model


def swap(
    model: nn.Module,
    *,
    pattern: str | Sequence[str] | None = None,
    num_template: int | None = None,
    backend: str = "auto",
    ignore: str | Collection[str] = (),
) -> SwapReport:
    """Replaces the attention and the Dual Attention Units of `model` by the kernels; parameters and state dict stay.

    An attention is a module with linear layers `qkv` and `proj` and an int `num_heads` (timm's, OSTrack's, FERMT's).
    Each is run beside its replacement on small random inputs first, in evaluation and in training, and is refused if
    result or gradient differ by more than the accuracy rule allows; so is one with arguments, children, buffers or
    attributes that are not understood. Hooks stay. Modules of this package, and those replaced before, only get the
    backend. `unswap` restores the model.

    Args:
        model: changed in place.
        pattern: one pattern for all blocks, or one for each, in the order of the model's modules (or of the argument
            `i`, where a forward takes it). None keeps what the model computes. Other than that, a given pattern may
            differ from what the model computes: then the original must be attention of another pattern, and the
            report says what replaced what.
        num_template: template tokens, for a forward that takes x alone; not needed for "full".
        backend: "auto" or a name from `fermt_kernels.backends()`.
        ignore: names of attributes, children, buffers or arguments of the attention that the caller knows to change
            nothing.

    Returns:
        What was replaced, and what was refused with the reason. A later call with a mask, or for the attention map,
        raises.

    Raises:
        ValueError: an unknown pattern or backend, as many patterns as there are not blocks, a model that is itself an
            attention, one that is sharded already, or nothing to replace.
    """
    requested(backend)
    _check_model(model)
    modules = list(model.named_modules())
    blocks = [name for name, module in modules if is_attention(module) or isinstance(module, SwappedAttention)]
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern or ())
    for name in patterns:
        checks.pattern("swap", name)
    if len(patterns) > 1 and len(patterns) != len(blocks):
        raise ValueError(f"swap: expected one pattern or one for each of {len(blocks)} blocks, got {len(patterns)}")
    ignored = frozenset((ignore,) if isinstance(ignore, str) else ignore)
    if num_template is not None:
        num_template = checks.index(num_template)
        checks.num_template("swap", num_template)
    request = _Request(patterns, num_template, backend, ignored, len(blocks))
    rows = []
    for name, module in modules:
        if isinstance(module, (Linear, PatchEmbed)):
            module.backend = backend
        elif isinstance(module, (TemplateSearchAttention, DualAttentionUnit)):
            module.backend = backend
            kind = ATTENTION if isinstance(module, TemplateSearchAttention) else UNIT
            rows.append(Replacement(name, kind, True, f"a module of this package, now on {backend}"))
        elif isinstance(module, SwappedAttention):
            rows.append(_swap_again(name, module, request))
        elif is_attention(module):
            rows.append(_swap_attention(model, name, module, blocks.index(name), request))
        elif is_unit(module):
            rows.append(_swap_unit(model, name, module, backend))
    if not rows:
        raise ValueError(
            "swap: found nothing to replace; expected modules with linear layers 'qkv' and 'proj' and an int "
            "'num_heads', or a Dual Attention Unit under FERMT's keys"
        )
    return SwapReport(rows)


def unswap(model: nn.Module) -> int:
    """Puts the original modules back that `swap` replaced; parameters, and what has been done to them, stay.

    Returns:
        How many modules were put back.
    """
    replaced = [module for module in model.modules() if isinstance(module, (SwappedAttention, SwappedUnit))]
    for module in replaced:
        _place(model, module, module.original)
    return len(replaced)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"swap: model must be a torch.nn.Module, got {type(model).__name__}")
    if is_attention(model) or is_unit(model):
        raise ValueError(
            f"swap: the model is itself what would be replaced ({type(model).__name__}), and there is nothing to put "
            "the replacement into; wrap it, torch.nn.Sequential(model), and use that"
        )
    classes = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if sharded := classes.intersection(SHARDING_WRAPPERS):
        raise ValueError(f"swap: the model is sharded by {', '.join(sorted(sharded))}; swap first, then shard it")


def _swap_again(name: str, module: SwappedAttention, request: _Request) -> Replacement:
    """A module that was replaced before gets the backend; with a pattern, it has to be put back first."""
    if request.patterns and set(request.patterns) != set(module.patterns):
        return Replacement(name, ATTENTION, False, f"replaced before, by {module.patterns}; fk.unswap(model) first")
    module.backend = request.backend
    return Replacement(name, ATTENTION, True, f"replaced before, now on {request.backend}")


def _swap_attention(model: nn.Module, name: str, module: nn.Module, block: int, request: _Request) -> Replacement:
    reason = attention_objection(module, request.ignore) or _dropout_objection(module)
    arguments = tuple(inspect.signature(module.forward).parameters)
    given = request.patterns
    own = given[block if len(given) > 1 else 0] if given else None
    if not reason and TEMPLATE_GRID[0] not in arguments and request.num_template is None and own not in (None, "full"):
        reason = f"pattern {own!r} needs num_template, and its forward takes neither Hz nor Wz"
    if reason:
        return Replacement(name, ATTENTION, False, reason)
    by_number = BLOCK_NUMBER in arguments  # the forward takes the block's number
    try:
        bare = bare_copy(module)
        computed = [_computed_pattern(bare, arguments, i, given) for i in (range(request.depth) if by_number else (0,))]
    except Exception as error:  # the module's own code may raise anything: it is refused, and this is the reason
        reason = f"it cannot be run beside its replacement: {type(error).__name__}: {error!s:.200}"
        return Replacement(name, ATTENTION, False, reason)
    for _, reason in computed:
        if reason:
            return Replacement(name, ATTENTION, False, reason)
    before = [found for found, _ in computed]
    patterns = given or tuple(before)
    replacement = SwappedAttention(
        module,
        patterns,
        block,
        request.num_template,
        request.backend,
        request.ignore,
        one_for_all=len(given) == 1,
    )
    _place(model, module, replacement)
    now, was = (names[block if len(names) > 1 else 0] for names in (patterns, before))
    detail = f"pattern {now!r}" + (" (of the block's argument i)" if by_number else "")
    return Replacement(name, ATTENTION, True, detail + ("" if now == was else f", in place of {was!r}"))


def _dropout_objection(module: nn.Module) -> str | None:
    dropout = attention_dropout(module)
    if module.training and dropout > 0:
        return f"attention dropout is {dropout} in training; a fused attention has none, so set it to 0"
    return None


def _computed_pattern(
    bare: nn.Module, arguments: tuple[str, ...], number: int, given: Sequence[str]
) -> tuple[str, str]:
    """The pattern that an attention computes when it is block `number`, and ""; or "", and why it is none of ours."""
    projection, reasons = linear_in(bare.get_submodule("qkv")), []
    assert projection is not None  # or it would be no attention
    width = projection.in_features
    if TEMPLATE_GRID[0] in arguments:
        values = [dict(zip(("Hz", "Wz", "Hx", "Wx"), grid, strict=True)) | {"i": number} for grid in GRIDS]
        sizes = tuple((BATCH, grid["Hz"] * grid["Wz"] + grid["Hx"] * grid["Wx"]) for grid in values)
        candidates = dict.fromkeys((*given, *PATTERNS))
    else:
        values, sizes, candidates = [{} for _ in SEQUENCES], SEQUENCES, dict.fromkeys(("full",))
    cases = [
        Case((*size, width), {name: value for name, value in given.items() if name in arguments})
        for size, given in zip(sizes, values, strict=True)
    ]
    for candidate in candidates:
        replacement = SwappedAttention(bare, (candidate,), 0, None, AUTO, one_for_all=True)
        reason = difference(bare, replacement, cases)
        if reason is None:
            redraw(linear_in(bare.get_submodule(name)) for name in ("qkv", "proj"))
            more = [
                Case((size[0], size[1] + EXTRA_TOKENS, width), case.arguments, True)
                for size, case in zip(sizes, cases, strict=True)
            ]
            reason = difference(bare, replacement, cases + (more if TEMPLATE_GRID[0] in arguments else []))
            return (candidate, "") if reason is None else ("", f"it computes none of the supported patterns; {reason}")
        reasons.append(f"{candidate!r}: {reason}")
    return "", "it computes none of the supported patterns; " + reasons[0]


def _swap_unit(model: nn.Module, name: str, module: nn.Module, backend: str) -> Replacement:
    reason = unit_objection(module)
    try:
        if not reason:
            bare = bare_copy(module)
            cases = [Case((BATCH, bare.get_parameter("proj_1.weight").shape[0], *size)) for size in IMAGE_SIZES]
            for change in (lambda: None, lambda: redraw(map(bare.get_submodule, LEAVES))):
                change()
                reason = reason or difference(bare, _unit_of(bare, backend), cases)
    except Exception as error:  # as for attention
        reason = f"it cannot be run beside its replacement: {type(error).__name__}: {error!s:.200}"
    if reason:
        return Replacement(name, UNIT, False, reason)
    unit = _unit_of(module, backend)
    share_hooks(module, unit)
    _place(model, module, unit)
    return Replacement(name, UNIT, True, f"{unit.proj_1.in_channels} channels")


class SwappedUnit(DualAttentionUnit):
    """Stands in for a model's own Dual Attention Unit: its layers, through the fused op; the original is kept."""

    kept: tuple[nn.Module, ...] = ()  # in a tuple, or it would become a child

    @property
    def original(self) -> nn.Module:
        """The unit that was replaced, with what its layers and hooks are now."""
        module = self.kept[0]
        _take_layers(module, self)
        share_hooks(self, module)
        return module.train(self.training)


def _unit_of(module: nn.Module, backend: str) -> SwappedUnit:
    parameters = dict(module.named_parameters())
    channels, hidden = parameters["proj_1.weight"].shape[0], parameters["spatial_gating_unit.fc.0.weight"].shape[0]
    unit = SwappedUnit(channels, hidden, backend=backend, device="meta")  # which draws no random numbers
    odd = [key for key, value in unit.named_parameters() if value.shape != parameters[key].shape]
    if odd:
        raise ValueError(f"shapes differ from FERMT's: {', '.join(odd)}")
    _take_layers(unit, module)
    unit.kept = (module,)
    return unit.train(module.training)


def _take_layers(module: nn.Module, other: nn.Module) -> None:
    for name in LEAVES:
        module.set_submodule(name, other.get_submodule(name))


def _place(model: nn.Module, module: nn.Module, replacement: nn.Module) -> None:
    """Puts a replacement wherever the model has that module: one that is used in two places is replaced in both."""
    for name, found in list(model.named_modules(remove_duplicate=False)):
        if found is module:
            model.set_submodule(name, replacement)
