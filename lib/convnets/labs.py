"""`convnets labs`: list, check, hint, solution, reset, progress and build."""

import contextlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .check import progress
from .check.lab import REPORTS, Lab
from .check.report import MARKS, PASSED

TABLE = ("% labs: begin", "% labs: end")   # what `build` writes between in labs/index.md
NOT_RUN = "-"


def add_parser(commands):
    """Add the command to argparse's subparsers."""
    parser = commands.add_parser("labs", help="the labs: check, hints, progress",
                                 description="Work on the labs. LAB is a number or a name: 1, "
                                             "convolution, 01_convolution.")
    parser.add_argument("--labs", type=Path, metavar="FOLDER", help="where the labs are")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    def action(name, run, help, *arguments):
        sub = actions.add_parser(name, help=help, description=run.__doc__)
        for flags, options in arguments:
            sub.add_argument(*flags, **options)
        sub.set_defaults(run=run)

    lab = (("lab",), {"metavar": "LAB"})
    exercise = (("exercise",), {"metavar": "EXERCISE"})
    action("list", show_labs, "the labs and their exercises")
    action("progress", show_progress, "what is solved")
    action("check", check, "run a notebook and report each exercise",
           (("notebook",), {"metavar": "LAB|NOTEBOOK"}),
           (("--timeout",), {"type": int, "default": 120, "metavar": "SECONDS",
                             "help": "for one cell (default: %(default)s)"}))
    action("hint", hint, "the next hint of an exercise", lab, exercise,
           (("--number",), {"type": int, "metavar": "N", "help": "hint N instead of the next"}))
    action("solution", solution, "the solution of an exercise", lab, exercise)
    action("reset", reset, "a blank notebook again; the old one is kept as a backup", lab,
           (("--yes",), {"action": "store_true", "help": "do not ask"}))
    action("build", build, "make the notebooks from the masters",
           (("names",), {"nargs": "*", "metavar": "LAB"}),
           (("--check",), {"action": "store_true", "help": "write nothing; exit 1 if one is old"}))


def show_labs(args):
    """List the labs, with title, minutes and exercises."""
    for lab in load_all(args.labs):
        print(f"{lab.name}: {title(lab.folder)}, {minutes(lab)} minutes")
        for exercise in lab.exercises.values():
            dots = "●" * exercise.difficulty + "○" * (3 - exercise.difficulty)
            print(f"  {exercise.name:<16} {dots} {exercise.minutes:3d} min  {exercise.title}")


def show_progress(args):
    """Show which exercises are solved, and how many hints they took."""
    file = progress.path()
    if file is None:
        raise ValueError("progress is switched off by CONVNETS_PROGRESS; unset it to see it")
    state = progress.state(file)
    print(f"{'lab':<18} {'solved':>6} {'hints':>6} {'minutes':>8}  exercises")
    for lab in load_all(args.labs):
        entry = state.get(lab.name, {"solved": {}, "hints": {}})
        done = [e for e in lab.exercises.values() if e.name in entry["solved"]]
        count = f"{len(done)}/{len(lab.exercises)}"
        spent = f"{sum(e.minutes for e in done)}/{minutes(lab)}"
        names = " ".join(f"{MARKS[PASSED] if e in done else '·'}{e.name}"
                         for e in lab.exercises.values())
        print(f"{lab.name:<18} {count:>6} {sum(entry['hints'].values()):>6} {spent:>8}  {names}")
    print(f"recorded in {file}")


def check(args):
    """Run a notebook in a fresh kernel, report each exercise, record what is solved."""
    path = Path(args.notebook)
    if path.suffix != ".ipynb":
        path = find(args.notebook, args.labs) / "lab.ipynb"
    if not path.is_file():
        raise ValueError(f"{path}: no such notebook")
    if not (path.parent / "checks.py").is_file():
        raise ValueError(f"{path}: no checks.py beside it. Keep the notebook in its lab's folder, "
                         f"under any name")
    lab = load(path.parent)
    reports, trouble = run(path, args.timeout)
    for name in lab.exercises:
        print(reports[name]["text"] if name in reports else f"{NOT_RUN} {name}: its check did not "
              f"run")
    solved = [name for name in lab.exercises if reports.get(name, {}).get("status") == PASSED]
    record(lab, solved)
    if trouble:
        print(trouble)
    print(f"{path.name}: {len(solved)} of {len(lab.exercises)} exercises solved")
    return 0 if len(solved) == len(lab.exercises) and not trouble else 1


def hint(args):
    """Show the next hint of an exercise; three, then where the solution is."""
    lab = load(find(args.lab, args.labs))
    file = progress.path()
    known = progress.state(file) if file else {}
    number = args.number
    if number is None:
        number = known.get(lab.name, {}).get("hints", {}).get(args.exercise, 0) + 1
    print(lab.hint(args.exercise, number))
    if file and number <= len(lab.exercises[args.exercise].hints):
        progress.hint(file, lab.name, args.exercise, number)


def solution(args):
    """Show the solution of an exercise."""
    print(load(find(args.lab, args.labs)).solution(args.exercise))


def reset(args):
    """Make a lab's notebook blank again and forget its progress; a backup is kept."""
    folder = find(args.lab, args.labs)
    path, saved = folder / "lab.ipynb", free_name(folder)
    if not args.yes and not confirmed(f"Make {path} blank again? A backup goes to {saved.name}."):
        print("Nothing changed.")
        return 1
    fresh = master_module().build(folder / "master.md")["lab.ipynb"]
    if path.exists():
        shutil.copy2(path, saved)
        print(f"backup: {saved}")
    master_module().write(fresh, path)
    if file := progress.path():
        progress.reset(file, folder.name)
    print(f"{path} is blank again")
    return 0


def build(args):
    """Make lab.ipynb and solution.ipynb of each lab from its master, and the table of labs."""
    root = root_of(args.labs)
    folders = [find(name, args.labs) for name in args.names] or folders_in(root)
    stale = [line for folder in folders for line in build_one(folder, args.check)]
    stale += update_table(root, args.check)
    for line in stale:
        print(line)
    return 1 if stale else 0


def build_one(folder, only_compare):
    """Build one lab; yields a line for each notebook that is not as it should be."""
    master = master_module()
    for name, notebook in master.build(folder / "master.md").items():
        path = folder / name
        stored = master.nbformat.read(path, as_version=4) if path.exists() else None
        differing = master.differences(notebook, stored) if stored else ["missing"]
        if only_compare:
            if differing:
                yield f"{path}: not what the master gives: {'; '.join(differing[:3])}"
        elif differing and stored and name == "lab.ipynb" and master.edited(stored):
            yield (f"{path}: left alone, somebody has worked in it. `convnets labs reset "
                   f"{folder.name}` makes it blank and keeps a backup")
        else:
            print(f"{path}: {'written' if master.write(notebook, path) else 'unchanged'}")


def update_table(root, only_compare):
    """Write the table of labs into index.md; yields a line if it was to be compared and is old."""
    path = root / "index.md"
    if not path.exists():
        return
    text = path.read_text("utf-8")
    if not all(mark in text for mark in TABLE):
        yield f"{path}: no lines {TABLE[0]!r} and {TABLE[1]!r} for the table"
        return
    before, rest = text.split(TABLE[0], 1)
    after = rest.split(TABLE[1], 1)[1]
    new = f"{before}{TABLE[0]}\n\n{table(root)}\n\n{TABLE[1]}{after}"
    if new != text and only_compare:
        yield f"{path}: its table is old"
    elif new != text:
        path.write_text(new, "utf-8")
        print(f"{path}: written")


def table(root):
    """The labs and exercises as a Markdown table."""
    rows = ["| Lab | Exercise | Difficulty | Minutes |", "| :-- | :-- | :-- | --: |"]
    for folder in folders_in(root):
        lab = load(folder)
        rows.append(f"| [{title(folder)}]({folder.name}/lab.ipynb) | "
                    f"{len(lab.exercises)} exercises | | {minutes(lab)} |")
        rows += [f"| | {e.title} | {'●' * e.difficulty}{'○' * (3 - e.difficulty)} | {e.minutes} |"
                 for e in lab.exercises.values()]
    return "\n".join(rows)


def root_of(chosen=None):
    """The folder of all labs: the chosen one, or the nearest above here or above the package."""
    if chosen:
        if not folders_in(chosen):
            raise ValueError(f"{chosen}: no lab in it (a lab is a folder with a master.md)")
        return chosen
    starts = (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents)
    found = next((p / "labs" for p in starts if folders_in(p / "labs")), None)
    if found is None:
        raise ValueError("no labs here: run this inside the repository, or say --labs FOLDER")
    return found


def folders_in(root):
    """The folders of the labs, in order."""
    return sorted(path.parent for path in Path(root).glob("*/master.md"))


def find(name, chosen=None):
    """The folder of the lab that goes by a number or a name."""
    root = root_of(chosen)
    known = folders_in(root)
    for folder in known:
        number, _, word = folder.name.partition("_")
        if name.strip("/") in (folder.name, word, number, number.lstrip("0"), str(folder)):
            return folder
    raise ValueError(f"no lab {name!r}; there are: {', '.join(f.name for f in known)}")


def load(folder):
    """The Lab that a folder's checks.py makes."""
    name = f"convnets_lab_{folder.name}"
    spec = importlib.util.spec_from_file_location(name, folder / "checks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.lab


def load_all(chosen=None):
    """Every Lab, in order."""
    return [load(folder) for folder in folders_in(root_of(chosen))]


def title(folder):
    """The first heading of a lab's master."""
    lines = (folder / "master.md").read_text("utf-8").splitlines()
    return next(line[2:] for line in lines if line.startswith("# "))


def minutes(lab: Lab):
    """Minutes for all exercises of a lab."""
    return sum(exercise.minutes for exercise in lab.exercises.values())


def run(path, timeout):
    """Execute a notebook in its folder and collect what its checks said.

    Returns
    -------
    reports : dict
        Exercise name to its last report: a dict with status and text.
    trouble : str
        The first cell that failed, or ''.
    """
    nbformat, client_module = notebook_modules()
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "reports.jsonl"
        client = client_module.NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", allow_errors=True,
            resources={"metadata": {"path": str(path.parent)}},
            extra_arguments=["--log-level=ERROR"])
        # One BLAS thread unless told otherwise: small networks run slower with more.
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ,
                       REPORTS: str(log), "CONVNETS_PROGRESS": "off"}
        trouble = ""
        try:
            client.execute(env=environment)
        except client_module.exceptions.CellTimeoutError:
            trouble = f"! a cell did not end within {timeout} s: a loop without end? --timeout"
        except client_module.exceptions.DeadKernelError:
            trouble = "! the kernel died"
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        reports = [json.loads(line) for line in lines if line]
    return {r["exercise"]: r for r in reports}, trouble or first_error(notebook)


def first_error(notebook):
    """A line on the first cell that raised, or ''."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return f"! cell {number} raised {output.ename}: {output.evalue}"
    return ""


def record(lab, names):
    """Record solved exercises; a file that cannot be written is no reason to fail."""
    file = progress.path()
    with contextlib.suppress(OSError):
        for name in names if file else ():
            progress.solved(file, lab.name, name)


def free_name(folder):
    """The first name for a backup that is not taken."""
    numbers = range(1, 1 + sum(1 for _ in folder.iterdir()))
    names = (folder / f"lab-backup-{number}.ipynb" for number in numbers)
    return next(path for path in names if not path.exists())


def confirmed(question):
    """Ask on the terminal; without one, the answer is no."""
    if not sys.stdin.isatty():
        raise ValueError("nobody to ask: add --yes")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def master_module():
    """`convnets.check.master`, which needs jupytext."""
    try:
        from .check import master
    except ImportError as error:
        raise ValueError(f"building labs needs jupytext and nbformat ({error}): "
                         f"pip install jupytext") from error
    return master


def notebook_modules():
    """nbformat and nbclient, which the book's extra installs."""
    try:
        import nbclient
        import nbformat
    except ImportError as error:
        raise ValueError(f"checking a notebook needs nbclient ({error}): pip install nbclient "
                         f"ipykernel") from error
    return nbformat, nbclient
