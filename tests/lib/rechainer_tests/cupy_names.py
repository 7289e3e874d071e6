"""Every name of CuPy that Chainer's sources use, and which of them a CuPy has.

``python cupy_names.py`` in an environment with CuPy adds that version to ``cupy_names.json``. No
driver is needed: CuPy can be imported without one.
"""

import ast
import importlib
import importlib.util
import json
from pathlib import Path

TABLE = Path(__file__).with_suffix(".json")
#: What Chainer's modules call CuPy's modules, longest first.
ALIASES = {
    "cuda.cupy.cuda": "cupy.cuda",
    "cuda.cupy": "cupy",
    "cuda.cuda": "cupy.cuda",
    "cuda.cupyx": "cupyx",
    "cuda.cudnn": "cupy.cudnn",
    "cuda.libcudnn": "cupy.cuda.cudnn",
    "cuda.cublas": "cupy.cuda.cublas",
    "cudnn": "cupy.cudnn",
    "libcudnn": "cupy.cuda.cudnn",
    "cupyx": "cupyx",
    "cupy": "cupy",
    "cp": "cupy",
    "xp": "cupy",
}
#: Names of an array that is called `cp` or `cupy` somewhere, not of the module.
OF_ARRAYS = ("cupy.data", "cupy.__name__")
#: In chainer/backends/cuda.py itself `cuda` is CuPy's module, not Chainer's.
WITHIN_CUDA = {"cuda": "cupy.cuda", "cupy": "cupy", "cupyx": "cupyx", "cudnn": "cupy.cudnn"}


def used(package):
    """Return the sorted full names of CuPy that a package's sources mention."""
    return sorted({name for _, names in _by_module(package) for name in names})


def modules_using(package, parts):
    """Return the modules that mention a name of cuDNN in which one of some parts appears."""
    return {module for module, names in _by_module(package)
            if any(part in name for name in names if "cudnn" in name for part in parts)}


def _by_module(package):
    (root,) = importlib.util.find_spec(package).submodule_search_locations
    for path in sorted(Path(root).rglob("*.py")):
        module = ".".join((package, *path.relative_to(root).with_suffix("").parts))
        aliases = WITHIN_CUDA if module == "chainer.backends.cuda" else ALIASES
        names = set(_names(ast.parse(path.read_text()), aliases))
        yield module, {name for name in names if not name.startswith(OF_ARRAYS)}


def _names(tree, aliases):
    inner = set()  # attributes that are part of a longer name
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (n.name for n in names if n.name.split(".")[0] in ("cupy", "cupyx"))
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("cupy"):
                yield from (f"{module}.{n.name}" for n in names)
            case ast.Attribute() if node not in inner:
                inner.update(n for n in ast.walk(node.value) if isinstance(n, ast.Attribute))
                name = _resolve(ast.unparse(node), aliases)
                if name:
                    yield name


def _resolve(text, aliases):
    alias = next((a for a in aliases if f"{text}.".startswith(f"{a}.")), None)
    name = alias and aliases[alias] + text[len(alias):]
    return name if name and name.replace(".", "").replace("_", "").isalnum() else None


def has(name):
    """Tell whether the installed CuPy has a name; modules that lack their CUDA library count."""
    head, *rest = name.split(".")
    found = importlib.import_module(head)
    for index, part in enumerate(rest, 2):
        module = ".".join(name.split(".")[:index])
        try:
            found = importlib.import_module(module) if _is_module(module) else getattr(found, part)
        except AttributeError:
            return False
        except (ImportError, RuntimeError):  # the CUDA library behind it is not here
            return True
    return True


def _is_module(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def main():
    """Add the installed CuPy to the table."""
    import cupy

    table = json.loads(TABLE.read_text())
    names = table["used"]
    table["missing"][cupy.__version__] = [name for name in names if not has(name)]
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
