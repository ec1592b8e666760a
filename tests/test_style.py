"""House rules that a machine can see: short files, opening sentences, calm generators, one place for 'cuda'."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("studio", "apps", "tests", "benchmarks", "training")
SOURCES = [*sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "run.py"]
ENGINE = [path for path in SOURCES if "studio" in path.parts and "surfaces" not in path.parts]
SETTINGS = ("no_grad", "inference_mode", "autocast", "set_grad_enabled", "enable_grad")


def named(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@named(SOURCES)
def test_files_are_short_and_begin_with_a_sentence(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    opening = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    assert opening.endswith((".", "?", "!")), "the first docstring paragraph is a sentence"
    assert path.stem not in ("utils", "helpers", "misc", "common")


@named(SOURCES)
def test_no_error_is_swallowed_and_nothing_is_left_over(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id == "Exception")
            silent = all(isinstance(line, ast.Pass) for line in node.body)
            assert not (broad and silent), f"line {node.lineno} swallows every error"
    if path != Path(__file__):
        assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", path.read_text(encoding="utf-8"))


def yields_inside(node):
    """Whether a yield lies below a node, nested functions left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.Yield | ast.YieldFrom) or yields_inside(child):
            return True
    return False


def setting(node):
    call = node.func if isinstance(node, ast.Call) else node
    name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
    return name in SETTINGS


@named(ENGINE)
def test_no_yield_under_a_thread_wide_setting(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.With) and any(setting(item.context_expr) for item in node.items):
            assert not yields_inside(node), f"line {node.lineno} yields under a setting of the thread"
        if isinstance(node, ast.FunctionDef) and any(setting(mark) for mark in node.decorator_list):
            assert not yields_inside(node), f"line {node.lineno} is a generator under a setting of the thread"


def test_the_yield_rule_can_fail():
    bad = ast.parse("def f():\n  with torch.no_grad():\n    for x in y:\n      yield x")
    block = next(node for node in ast.walk(bad) if isinstance(node, ast.With))
    assert setting(block.items[0].context_expr) and yields_inside(block)


@named(ENGINE)
def test_the_engine_is_silent(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            assert name not in ("print", "input"), f"line {node.lineno} prints"
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & {"logging", "warnings"}


@named([path for path in ENGINE if path.name not in ("devices.py", "test_style.py")])
def test_only_devices_knows_cuda(path):
    code = tree(path)
    docs = {id(node.value) for node in ast.walk(code) if isinstance(node, ast.Expr)}
    for node in ast.walk(code):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            inside_choice = node.value == "cuda" and "studies" in path.parts
            assert node.value != "cuda" or inside_choice, f"line {node.lineno} says cuda"


@named([path for path in SOURCES if "studio" in path.parts])
def test_every_module_says_what_it_offers(path):
    code = tree(path)
    if path.name == "__main__.py" or (path.name == "__init__.py" and len(code.body) <= 1):
        return
    names = [
        t.id for node in code.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    assert "__all__" in names


def test_no_pickle_and_no_unsafe_loading():
    for path in SOURCES:
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            assert "pickle.load" not in text and not re.search(r"weights_only\s*=\s*False", text), path
