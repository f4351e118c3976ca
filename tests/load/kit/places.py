"""Where things are: the program, the scratch folder, the rig."""

import importlib.util
import os
import shutil
import subprocess
import sys

LOAD = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(os.path.dirname(LOAD))
TARGET = os.path.join(LOAD, "target")
SCENARIOS = os.path.join(LOAD, "scenarios")


class Missing(Exception):
    """Something that a run cannot do without is not there; the text says what to do."""


def binary():
    """The release binary: $TRUNKLINE_BIN, or the one of the target folder."""
    built = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    path = os.environ.get("TRUNKLINE_BIN", os.path.join(built, "release", "trunkline"))
    if not os.access(path, os.X_OK):
        raise Missing(f"{path} is not there: run `cargo build --release --bin trunkline`, "
                      "or set TRUNKLINE_BIN")
    return os.path.abspath(path)


def scratch():
    """Folder of stores and of the rig's programs, kept between runs: <target>/load."""
    built = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    path = os.path.join(os.path.abspath(built), "load")
    os.makedirs(path, exist_ok=True)
    return path


def commit():
    """The commit of this checkout; of the binary only the time is known."""
    described = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                               capture_output=True, text=True, check=False)
    return described.stdout.strip() or "unknown"


def rig_folder():
    """Where the rig lies, or None."""
    path = os.environ.get("TRUNKLINE_RIG", os.path.join(ROOT, "..", "shared", "rig"))
    return os.path.abspath(path) if os.path.isfile(os.path.join(path, "rig.py")) else None


def open_rig(floors):
    """The rig as a module, its programs built in a copy, or None with the reason why not.

    `floors`: also the program that says what an agent call costs at least, which needs cargo.
    """
    source = rig_folder()
    if not source:
        return None, "no rig: TRUNKLINE_RIG does not name its folder"
    copy = os.path.join(scratch(), "rig")
    shutil.copytree(source, copy, dirs_exist_ok=True, copy_function=_copy_if_newer)
    for folder in ("rtpload", "limits", "wsagent"):
        made = subprocess.run(["make", "-s", "-C", os.path.join(copy, folder)],
                              capture_output=True, text=True, check=False)
        if made.returncode:
            return None, f"the rig's {folder} does not build: {made.stderr.strip()[-300:]}"
    os.environ.setdefault("WSFLOOR", os.path.join(scratch(), "wsfloor", "release", "wsfloor"))
    if floors and not os.access(os.environ["WSFLOOR"], os.X_OK):
        build = ["cargo", "build", "--quiet", "--release", "--target-dir",
                 os.path.join(scratch(), "wsfloor")]
        subprocess.run(build, cwd=os.path.join(copy, "wsfloor"), check=False)
    spec = importlib.util.spec_from_file_location("rig", os.path.join(copy, "rig.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["rig"] = module
    spec.loader.exec_module(module)
    return module, None


def _copy_if_newer(source, target):
    if not os.path.exists(target) or os.path.getmtime(source) > os.path.getmtime(target):
        # The source may be read-only; the copy is built in.
        shutil.copyfile(source, target)
        shutil.copystat(source, target)
        os.chmod(target, 0o644)
    return target
