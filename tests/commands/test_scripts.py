"""The shell scripts: the environment is found at once, or a sentence says what is missing."""

import ast
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT, active_environment, executable

BASH, PROGRAMS = shutil.which("bash"), "*.py utils/**/*.py training/*.py benchmarks/*.py"
NO_PYTHON = "Python 3.11 or newer is needed and none was found on PATH: install one (for example from python.org).\n"
SOURCE = 'source ./environment.sh && command -v python && python -c "import sys; print(sys.prefix)"'


@pytest.fixture
def project(tmp_path):
    """The scripts and the pins alone, in a folder without an environment."""
    folder = tmp_path / "my cloné dir"
    folder.mkdir()
    for path in (ROOT / "environment.sh", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, folder)
    return folder


def shell(command, folder, **variables):
    return subprocess.run([BASH, "-c", command], cwd=folder, env=variables, capture_output=True, text=True)


def restricted_path(tmp_path, before=None):
    """Return a folder of the few programs that the scripts call, with a python3 that first runs `before`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("bash", "dirname", "basename", "cat", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    if before is not None:
        python = shlex.quote(os.path.realpath(sys.executable))
        with_code = f'[ "$1" = -c ] && exec {python} -c {shlex.quote(before)}"; $2"'
        with_module = f'[ "$1" = -m ] && exec {python} "$@"'
        executable(folder / "python3", f"#!{BASH}\n{with_code}\n{with_module}\nexit 1\n")
    return str(folder)


def test_environment_beside_the_script_is_found_without_an_active_one_that_has_the_pins(project, tmp_path):
    (project / ".venv").symlink_to(sys.prefix)
    path, other = restricted_path(tmp_path), tmp_path / "other"
    executable(other / "bin" / "python", f"#!{BASH}\nexit 1\n")
    active = {"PATH": f"{other / 'bin'}{os.pathsep}{path}", "VIRTUAL_ENV": str(other)}
    text = "The active environment lacks a version that requirements.txt pins; using .venv instead.\n"
    for variables, said in (({"PATH": path}, ""), (active, text)):
        done = shell(SOURCE, project, **variables)
        assert (done.returncode, done.stderr) == (0, said)
        assert done.stdout.splitlines()[0] == str(project / ".venv" / "bin" / "python")


def pinned(name):
    """Return the packages that a list pins, and those of the lists that it names, as pip compares their names."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines()]
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    return names.union(*(pinned(line.removeprefix("-r ")) for line in lines if line.startswith("-r ")))


def trees(*patterns):
    """Return the syntax trees of the Python files in this repository that match."""
    return [ast.parse(path.read_text(encoding="utf-8")) for pattern in patterns for path in ROOT.glob(pattern)]


@pytest.mark.parametrize(("files", "list_of"), [(PROGRAMS, "cluster"), ("tests/**/*.py", "dev")])
def test_every_package_that_is_imported_is_pinned(files, list_of):
    nodes = [node for tree in trees(*files.split()) for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    installed = packages_distributions()
    names = {name for module in modules for name in installed.get(module.partition(".")[0], [])}
    assert {"torch", "numpy"} <= names
    assert {name.lower().replace("_", "-") for name in names} <= pinned(f"requirements-{list_of}.txt")


def test_pin_that_is_not_satisfied_is_noticed_also_in_a_list_that_another_one_names(project, tmp_path):
    (project / ".venv").symlink_to(sys.prefix)
    path, other = restricted_path(tmp_path), "no-such-package-anywhere==1.0"
    for file, pin in (("cluster", "numpy==0.0.1"), ("dev", "numpy==0.0.1"), ("dev", other)):
        (project / f"requirements-{file}.txt").write_text(f"{pin}\n")
        done = shell(SOURCE, project, PATH=path, REQUIREMENTS="requirements-dev.txt")
        assert (done.returncode, done.stderr) == (1, NO_PYTHON)  # it sets out to make one, and there is no Python


OLD = "import sys; sys.version_info = (3, 10, 9, 'final', 0)"
NO_VENV = "import sys; sys.modules['venv'] = None"
SAY_VENV = "Python's venv module is missing: install it (on Debian and Ubuntu: apt install python3-venv).\n"


@pytest.mark.parametrize(("before", "said"), [(None, NO_PYTHON), (OLD, NO_PYTHON), (NO_VENV, SAY_VENV)])
def test_missing_python_is_one_sentence(project, tmp_path, before, said):
    done = shell(SOURCE, project, PATH=restricted_path(tmp_path, before))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert not (project / ".venv").exists()


def test_without_a_network_the_reason_is_said(project, tmp_path):
    # PIP_NO_INDEX stands for a network that is not there: pip then finds no package, at once.
    done = shell(SOURCE, project, PATH=restricted_path(tmp_path, "pass"), PIP_NO_INDEX="1")
    assert (done.returncode, done.stdout) == (1, "")
    first, *reasons, last = done.stderr.splitlines()
    assert first.startswith("Making the Python environment in .venv (once;")
    assert any(reason.startswith("ERROR: No matching distribution found") for reason in reasons)
    assert last.startswith("pip could not install requirements.txt, for the reason above. If there is no network here,")


def test_own_modules_and_pinned_versions_win_also_where_cd_is_a_function_that_lists(clone, tmp_path):
    site = tmp_path / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"  # of a person
    for folder in (tmp_path / "utils", tmp_path / "tqdm", site / "tqdm"):
        executable(folder / "__init__.py", "1 / 0")
    variables = {"PYTHONPATH": str(tmp_path), "PYTHONUSERBASE": str(tmp_path), "PYTHONSAFEPATH": "1", "PIP_USER": "1"}
    command = 'cd() { builtin cd "$@" && ls; }; source ./environment.sh; python -c "import tqdm, utils; print(%s)"'
    done = shell(command % "utils.__file__, tqdm.__version__", clone, **active_environment(**variables))
    (pin,) = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("tqdm==")]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[0] == f"{clone}/utils/__init__.py {pin.split()[0].removeprefix('tqdm==')}"


def test_environment_is_made_whatever_pip_is_told_and_anew_where_its_folder_was_renamed(project, tmp_path):
    """With a package of its own, so without a network."""
    about = "Metadata-Version: 2.1\nName: pinned\nVersion: 1.0\n", "Wheel-Version: 1.0\nTag: py3-none-any\n"
    program = "[console_scripts]\npinned = pinned:main\n"
    with zipfile.ZipFile(tmp_path / "pinned-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pinned.py", "def main(): print('here')")
        for name, text in zip(("METADATA", "WHEEL", "entry_points.txt", "RECORD"), (*about, program, ""), strict=True):
            wheel.writestr(f"pinned-1.0.dist-info/{name}", text)
    (project / "requirements.txt").write_text("pinned==1.0\n")
    (tmp_path / "pip.conf").write_text("[install]\nuser = true\n")
    pip = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_TARGET": str(tmp_path / "target"), "PIP_USER": "1"}
    pip |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}  # where packages come from is obeyed
    command, path = "source ./environment.sh && pinned", restricted_path(tmp_path, "pass")
    done = shell(command, project, PATH=path, **pip)
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
    (tmp_path / "link").symlink_to(project)
    (tmp_path / "bin" / "python3").unlink()  # from here on none can be made
    for folder in (project, tmp_path / "link"):
        done = shell(command, folder, PATH=path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")
    done = shell(command, project.rename(tmp_path / "renamed"), PATH=path)
    assert (done.returncode, done.stderr) == (1, NO_PYTHON)


@pytest.mark.parametrize("script", ["training/no_regularizer/run.sh", "run_all.sh", "run_tests.sh"])
def test_scripts_end_where_there_is_no_environment(project, tmp_path, script):
    (project / script).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / script, project / script)
    command = f"bash {shlex.quote(f'{project.name}/{script}')}"
    done = shell(command, tmp_path, PATH=restricted_path(tmp_path), CDPATH=".")  # with CDPATH, cd may print a path
    assert (done.returncode, done.stderr) == (1, NO_PYTHON)


def test_run_all_hands_its_words_and_the_exit_status_on(project, tmp_path):
    shutil.copy(ROOT / "run_all.sh", project)
    python = '[ "$1" = -I ] && exit 0\necho "$@"\nexit 3'  # the first call asks for the pins
    executable(tmp_path / "fake" / "python", f"#!{BASH}\n{python}\n")
    path = f"{tmp_path / 'fake'}{os.pathsep}{os.environ['PATH']}"
    done = shell(f"bash '{project.name}/run_all.sh' --workers 2", tmp_path, PATH=path, VIRTUAL_ENV="x")
    assert (done.returncode, done.stdout, done.stderr) == (3, "-m training.sweep --all --workers 2\n", "")


def test_check_dependencies_asks_about_every_list_and_fails_where_one_fails(tmp_path):
    executable(tmp_path / "pip-audit", f'#!{BASH}\necho "$@" >> asked\n[[ "$*" != *requirements-dev* ]]\n')
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    assert shell(f"bash '{ROOT}/check_dependencies.sh'", tmp_path, PATH=path).returncode == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.rpartition("/")[2] for line in asked] == sorted(path.name for path in ROOT.glob("requirements*.txt"))
    assert all("--strict" in line for line in asked)


def test_run_sh_is_the_same_in_every_experiment():
    runs = [path.read_bytes() for path in (ROOT / "training").glob("*/run.sh")]
    assert len(runs) > 1 and len(set(runs)) == 1


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = [*ROOT.glob("*.sh"), *ROOT.glob(".ci/*"), *ROOT.glob("training/no_regularizer/run.sh")]
    done = subprocess.run(["shellcheck", "--exclude=SC1091", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
