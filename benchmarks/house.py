"""What the code of the package looks like in numbers: lines, types, functions, the largest file, imports of layers.

    python benchmarks/house.py

Counts follow from the design, never the other way round; they are kept so that a change of direction is seen.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from record import write_record

import edgekd

Function = ast.FunctionDef | ast.AsyncFunctionDef
_SKIPPED = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    tokenize.ENCODING,
)  # fmt: skip


def docstrings(tree: ast.Module) -> set[int]:
    """Numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node, clean=False) is not None:
            said = node.body[0]
            lines |= set(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    return lines


def code_lines(source: str) -> int:
    """Lines with code on them: no comments, no docstrings, none that are empty."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _SKIPPED:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings(ast.parse(source)))


def functions(tree: ast.Module) -> Iterator[tuple[int, bool]]:
    """Each function's lines without its docstring, and whether all of it is typed."""
    said = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            typed = node.returns is not None and all(a.annotation or a.arg in ("self", "cls") for a in given)
            yield len(set(range(node.lineno, (node.end_lineno or 0) + 1)) - said), typed


def types(trees: list[ast.Module]) -> int:
    """Dataclasses, models and named tuples: whatever is declared by its fields."""
    bases = {
        n.name: {ast.unparse(b) for b in n.bases} for t in trees for n in ast.walk(t) if isinstance(n, ast.ClassDef)
    }
    declared = {"BaseModel", "NamedTuple", "TypedDict"}
    while new := {name for name, above in bases.items() if above & declared} - declared:
        declared |= new
    decorated = {
        n.name
        for t in trees
        for n in ast.walk(t)
        if isinstance(n, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in n.decorator_list)
    }
    return len((declared & bases.keys()) | decorated)


def main() -> None:
    """Count, print and keep."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    sources = [path.read_text(encoding="utf-8") for path in sorted(Path(edgekd.__file__).parent.rglob("*.py"))]
    trees = [ast.parse(source) for source in sources]
    found = [function for tree in trees for function in functions(tree)]
    sizes, code = np.array([size for size, _ in found]), sum(map(code_lines, sources))
    content = {
        "files": len(sources),
        "lines": sum(source.count("\n") for source in sources),
        "code_lines": code,
        "longest_file": max(source.count("\n") for source in sources),
        "types": types(trees),
        "types_per_thousand_code_lines": round(1000 * types(trees) / code, 2),
        "functions": len(found),
        "function_lines": {
            "median": float(np.median(sizes)),
            "p90": float(np.percentile(sizes, 90)),
            "max": int(max(sizes)),
        },
        "typed": float(np.mean([typed for _, typed in found])),
    }
    print("\n".join(f"{name}: {value}" for name, value in content.items()))
    write_record("house", content)


if __name__ == "__main__":
    main()
