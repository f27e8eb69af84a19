"""The documents: their Python runs, their commands, options, names and links exist."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer.main

import fermt
from fermt.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"))
)
CURRENT = [document for document in DOCUMENTS if document != "CHANGELOG.md"]  # which names what was, too
NOT_RUN = "<!-- not run:"  # in the line above a block, with the reason
FILES = re.compile(r"(fk|fermt|fermt_kernels)\.(safetensors|onnx|fermt|h|template|frame\.onnx|pt2|mp4)\b")
NEED_A_TOOLKIT = ("fermt.adapters.got10k", "fermt.adapters.vot")


class Block(NamedTuple):
    """A fenced block of a document."""

    line: int  # of its first line
    language: str
    text: str
    runs: bool


def blocks(document: str) -> Iterator[Block]:
    lines = (ROOT / document).read_text().splitlines()
    start, language, runs = 0, "", True
    for number, line in enumerate(lines, 1):
        fence = re.match(r"\s*```(\w*)$", line)
        if fence and not start:
            start, language = number + 1, fence[1]
            runs = not (number > 1 and lines[number - 2].startswith(NOT_RUN))
        elif fence:
            yield Block(start, language, "\n".join(lines[start - 1 : number - 1]), runs)
            start = 0
    assert not start, f"{document}: the block at line {start} has no end"


def commands(document: str) -> Iterator[tuple[int, list[str]]]:
    """Line and words of each command, in a block of the shell or between backticks; comments are left out."""
    shell = [block for block in blocks(document) if block.language in ("", "bash")]
    texts = [(block.line, block.text.replace("\\\n", " ")) for block in shell]
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        texts += [(number, code) for code in re.findall(r"`([^`]+)`", line)]
    for number, text in texts:
        for line in text.splitlines():
            if re.match(r"(\w+=\S* )*(fermt|make|python|pytest|torchrun|\.venv/bin/python) ", line.strip()):
                for part in line.split("&&"):
                    with contextlib.suppress(ValueError):  # a quotation that goes on in the next line
                        words = [word for word in shlex.split(part, comments=True) if word != "..."]
                        while words and re.match(r"\w+=", words[0]):
                            words = words[1:]
                        yield number, words


def named_command(words: list[str]) -> tuple[Any, list[str]]:
    """The command that `words` name, after "fermt", and what is left of them; AssertionError if there is none."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


def check_fermt(words: list[str]) -> None:
    command, rest = named_command(words)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in rest:
        option = word.split("=")[0]
        assert not option.startswith("--") or option in known | {"--help"}, f"{command.name} has no {option}"


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        assert "=" in word or word.startswith("-") or word in targets, f"the Makefile has no {word!r}"


def check_python(words: list[str]) -> None:
    if words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
    if words[:2] == ["-m", "fermt"]:
        check_fermt(words[2:])
    elif words[0] == "-m" and words[1] == "pytest":
        for word in words[2:]:
            assert not word.startswith("tests") or (ROOT / word).exists(), f"there is no {word}"
    elif words[0] == "-m" and words[1].split(".")[0] in ("benchmarks", "tools", "fermt"):
        spec = importlib.util.find_spec(words[1])
        assert spec is not None, f"there is no module {words[1]}"
        if spec.submodule_search_locations is not None:  # a package, which runs its __main__
            spec = importlib.util.find_spec(f"{words[1]}.__main__")
            assert spec is not None, f"the package {words[1]} cannot be run"
        source = Path(spec.origin or "").read_text()
        for word in words[2:]:
            name = word.split("=")[0].removeprefix("--")
            known = f'"--{name}"' in source or re.search(rf"\b{name.replace('-', '_')}:", source)
            assert not word.startswith("--") or known, f"{words[1]} has no --{name}"


CHECKS = {"fermt": check_fermt, "make": check_make, "python": check_python, ".venv/bin/python": check_python}


@pytest.mark.parametrize("document", CURRENT)
def test_commands_exist(document: str) -> None:
    for line, words in commands(document):
        if words and words[0] == "torchrun":
            words = ["python", *words[words.index("-m") :]]
        if words and words[0] in CHECKS and words[1:]:
            try:
                CHECKS[words[0]](words[1:])
            except AssertionError as error:
                raise AssertionError(f"{document}:{line}: {error}") from None


@pytest.mark.parametrize(
    ("line", "wrong"),
    [("fermt fly", "fly"), ("fermt track --wings 2", "--wings"), ("make coffee", "coffee"),
     ("python -m benchmarks.coffee", "coffee"), ("python -m benchmarks.frame --wings", "wings")],
)  # fmt: skip
def test_a_command_that_does_not_exist_is_found(line: str, wrong: str) -> None:
    words = line.split()
    with pytest.raises(AssertionError, match=wrong):
        CHECKS[words[0]](words[1:])


@pytest.mark.parametrize("document", CURRENT)
def test_names_exist(document: str) -> None:
    for name in re.findall(r"\b((?:fk|fermt|fermt_kernels)(?:\.[A-Za-z_]\w*)+)", (ROOT / document).read_text()):
        if FILES.match(name):
            continue
        first, *parts = name.split(".")
        module = {"fk": "fermt_kernels"}.get(first, first)
        found: Any = importlib.import_module(module)
        for part in parts:
            module = f"{module}.{part}"
            if not hasattr(found, part) and inspect.ismodule(found) and importlib.util.find_spec(module):
                if module in NEED_A_TOOLKIT:
                    break
                importlib.import_module(module)
            assert hasattr(found, part), f"{document} names {name}, and there is no {part}"
            found = getattr(found, part)


def anchors(path: Path) -> set[str]:
    """Of the headings of a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), f"{document} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{document} links to {target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_parses(document: str) -> None:
    for block in blocks(document):
        if block.language == "python":
            ast.parse(block.text, f"{document}:{block.line}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the weights that the documents read."""
    made = tmp_path_factory.mktemp("documents")
    torch.manual_seed(0)
    fermt.save(fermt.build_model("fermt").eval(), made / "fermt.safetensors")
    return made


@pytest.mark.parametrize("document", ["README.md", "docs/kernels.md", "docs/tracking.md", "docs/deploy.md"])
def test_python_runs(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a document one after the other, as a reader would run them; those that cannot are marked."""
    monkeypatch.chdir(folder)
    generator = np.random.default_rng(0)
    names: dict[str, Any] = {
        name: generator.integers(0, 256, (360, 640, 3), np.uint8) for name in ("first_frame", "next_frame")
    }
    ran = 0
    for block in blocks(document):
        if block.language == "python" and block.runs:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * (block.line - 1) + block.text, document, "exec"), names)
            ran += 1
    assert ran > 0
