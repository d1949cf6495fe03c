"""The rules that one file alone can break, each a function from a source to its faults."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from house.source import Function, Source

MAX_LINE_CHARS = 100
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_ARGUMENTS = 8

_MUTABLE_CALLS = {"list", "dict", "set", "bytearray", "defaultdict", "deque", "Counter"}
_MUTATORS = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem"}
_MUTATORS |= {"clear", "remove", "discard", "appendleft", "sort", "reverse"}
_UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
_UNSAFE_MODULES |= {"marshal"}
_PICKLE_ERRORS = ("pickle.UnpicklingError", "pickle.PickleError")


def line_violations(source: Source) -> Iterator[str]:
    """Lines of at most 100 characters, files of at most 400 lines."""
    lines = source.text.splitlines()
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE_CHARS:
            yield f"{source.path}:{number}: {len(line)} characters, budget {MAX_LINE_CHARS}"
    if len(lines) > MAX_FILE_LINES:
        yield f"{source.path}: {len(lines)} lines, budget {MAX_FILE_LINES}"


def function_violations(source: Source) -> Iterator[str]:
    """Functions of at most 60 lines and 8 arguments; no `**kwargs` that pass through."""
    for node, name, _ in source.functions():
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION_LINES:
            yield source.at(node, f"{name} has {length} lines, budget {MAX_FUNCTION_LINES}")
        count = len([argument for argument in _arguments(node) if argument is not node.args.kwarg])
        if count > MAX_ARGUMENTS:
            yield source.at(node, f"{name} takes {count} arguments, budget {MAX_ARGUMENTS}")


# jinja2 calls these with whatever a template wrote; they stand before the callee, which refuses it.
STANDS_FOR_ANY_CALL = ("src/puna/tokens/template_bounds.py", "src/puna/tokens/templates.py")


def kwargs_violations(source: Source) -> Iterator[str]:
    """No function takes `**kwargs`: a mistyped name must fail where it is written."""
    if source.path in STANDS_FOR_ANY_CALL:
        return
    for node in ast.walk(source.tree):
        if isinstance(node, Function | ast.Lambda) and node.args.kwarg is not None:
            yield source.at(node, f"takes **{node.args.kwarg.arg}; name the arguments")


def typed_violations(source: Source) -> Iterator[str]:
    """Public functions say the type of every argument and of what they return."""
    for node, name, public in source.functions():
        if not public:
            continue
        for argument in _arguments(node):
            if argument.annotation is None:
                yield source.at(node, f"{name}: argument {argument.arg} has no type")
        if node.returns is None and node.name != "__init__":
            yield source.at(node, f"{name} does not say what it returns")


def documented_violations(source: Source) -> Iterator[str]:
    """Modules, public classes and public functions have docstrings; dunder methods need none."""
    if not ast.get_docstring(source.tree):
        yield source.at(source.tree, "the module has no docstring")
    for node, name, public in source.functions():
        exempt = node.name.startswith("__") or _decorators(node) & {"overload", "override"}
        if public and not exempt and not ast.get_docstring(node):
            yield source.at(node, f"{name} has no docstring")
    for node in source.tree.body:
        public = isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        if public and not ast.get_docstring(node):
            yield source.at(node, f"class {node.name} has no docstring")


def future_violations(source: Source) -> Iterator[str]:
    """Every module that holds code starts with `from __future__ import annotations`."""
    body = source.tree.body[1:] if ast.get_docstring(source.tree) else source.tree.body
    first = body[0] if body else None
    if body and not (isinstance(first, ast.ImportFrom) and first.module == "__future__"):
        yield source.at(source.tree, "does not start with `from __future__ import annotations`")


def state_violations(source: Source) -> Iterator[str]:
    """No module-level mutable state: constants in capitals, and nobody changes those."""
    constants = set()
    for node in source.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if not isinstance(target, ast.Name) or not _mutable(node.value):
                continue
            constants.add(target.id)
            if not target.id.isupper() and target.id != "__all__":
                yield source.at(node, f"module-level mutable state: {target.id}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield source.at(node, f"global {', '.join(node.names)}: module-level mutable state")
        elif _changed(node) in constants:
            yield source.at(node, f"changes {_changed(node)}, which stands at module level")


def import_time_violations(source: Source) -> Iterator[str]:
    """No work at import: no bare calls, loops or contexts at module level."""
    for node in source.tree.body:
        call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        registers = call and ast.unparse(node.value.func).startswith("app.")
        if (call and not registers) or isinstance(node, ast.For | ast.While | ast.With):
            yield source.at(node, f"work at import: {ast.unparse(node).splitlines()[0][:60]}")


def safety_violations(source: Source) -> Iterator[str]:
    """Nothing that runs code from a file: pickle, eval, unsafe loads, remote code."""
    yield from _pickle_uses(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _unsafe_imports(source, node)
        elif isinstance(node, ast.Call):
            fault = _unsafe_call(node)
            if fault:
                yield source.at(node, fault)


def _unsafe_imports(source: Source, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
    names = [f"{module}.{a.name}" if module else a.name for a in node.names]
    for name in names:
        harmless = name in ("pickle", *_PICKLE_ERRORS)  # plain `import pickle`: see _pickle_uses
        if name.partition(".")[0] in _UNSAFE_MODULES and not harmless:
            yield source.at(node, f"imports {name}: nothing here is pickled")
        default = name.startswith("torch.distributed.checkpoint")
        if default and not name.startswith("torch.distributed.checkpoint.state_dict"):
            yield source.at(node, "torch's distributed checkpoint pickles its metadata")


def _pickle_uses(source: Source) -> Iterator[str]:
    """`import pickle` is for its exceptions, which torch raises; any other use is a fault."""
    fine = {
        id(node.value)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in _PICKLE_ERRORS
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id == "pickle" and id(node) not in fine:
            yield source.at(node, "uses pickle beyond its exceptions: nothing here is pickled")
        if isinstance(node, ast.alias) and node.name == "pickle" and node.asname:
            yield source.at(node, "imports pickle under another name")


def _unsafe_call(node: ast.Call) -> str | None:
    name = ast.unparse(node.func)
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if name in ("eval", "exec", "compile"):
        return f"calls {name}"
    if name in ("torch.jit.load", "torch.hub.load"):
        return f"{name} runs code from a file"
    if name == "torch.load" and not _is(keywords.get("weights_only"), True):
        return "torch.load without weights_only=True"
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
        return f"{name}: use the safe loader"
    for argument, harmless in (("allow_pickle", False), ("shell", False)):
        if argument in keywords and not _is(keywords[argument], harmless):
            return f"{name} with {argument}"
    if "trust_remote_code" in keywords and not _is(keywords["trust_remote_code"], False):
        return f"{name} with trust_remote_code"
    return None


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _arguments(node: Function) -> list[ast.arg]:
    """All arguments, without the first of a method."""
    arguments = node.args
    listed = [*arguments.posonlyargs, *arguments.args]
    if listed and listed[0].arg in ("self", "cls", "mcs"):
        listed = listed[1:]
    rest = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return [*listed, *arguments.kwonlyargs, *rest]


def _decorators(node: Function) -> set[str]:
    return {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}


def _mutable(value: ast.expr | None) -> bool:
    displays = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _MUTABLE_CALLS
    return isinstance(value, displays)


def _changed(node: ast.AST) -> str | None:
    """The name whose content a statement changes: `X[k] = v`, `del X[k]`, `X.append(v)`."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        held = node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        held = node.func.value if node.func.attr in _MUTATORS else None
    else:
        held = None
    return held.id if isinstance(held, ast.Name) else None
