"""What the stages share. Import its modules, not this package.

A real package, not a namespace: a stray `utils` elsewhere on the path must not win. And a program of one checkout must
never run with the `utils` of another (an editable install of the first, say), so the first import checks that.
"""

import sys
from pathlib import Path


def _refuse_another_checkout() -> None:
    program = Path(getattr(sys.modules.get("__main__"), "__file__", None) or ".").resolve()
    here = Path(__file__).resolve().parents[1]
    for folder in program.parents:
        if (folder / "utils" / "__init__.py").is_file() and (folder / "training" / "launch.sh").is_file():
            if folder != here:
                sys.stderr.write(
                    f"error: {program} would run with the utils of another checkout, {here / 'utils'}; "
                    f"set PYTHONPATH={folder} or run `pip install -e {folder}`\n"
                )
                raise SystemExit(2)
            return


_refuse_another_checkout()
