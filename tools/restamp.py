"""Keep records fresh over a change of code that changes no result: old digests are mapped to new ones, with proof.

``python tools/restamp.py OLD_COMMIT...`` runs ``tools/golden_outputs.py`` in a checkout of each old commit and in this
one, on this machine. Of each kind of record and network whose outputs are bit-equal it notes in ``data/codes.json``
that what the old code made, the new code would make too. Records themselves are never touched. Where outputs differ
nothing is noted, and the records are stale. Kinds without a stale record are left as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import manifest

from quide.experiments import records, staleness

CHECKOUT = Path(__file__).resolve().parent.parent
TABLE = CHECKOUT / "data" / "codes.json"


def computed(checkout: Path, kinds: set[str]) -> dict:
    """What ``tools/golden_outputs.py`` of a checkout prints of some kinds."""
    script = checkout / "tools" / "golden_outputs.py"
    environment = os.environ | {"PYTHONPATH": str(checkout), "QUIDE_HOME": str(checkout), "TQDM_DISABLE": "1"}
    command = [sys.executable, script, *sorted(kinds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=checkout)
    if done.returncode:
        sys.exit(f"{script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout[done.stdout.index("{\n") :])


def computed_by(commit: str, kinds: set[str]) -> dict:
    """The same of a commit, asked by today's script."""
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder, "old")
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", old, commit], cwd=CHECKOUT, check=True)
        try:
            (old / "tools").mkdir(exist_ok=True)
            shutil.copy(CHECKOUT / "tools" / "golden_outputs.py", old / "tools")
            return computed(old, kinds)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=CHECKOUT, check=True)


def main(*commits: str) -> None:
    """Note the equivalences that hold and are needed; of each record by the first commit whose code made it."""
    held = [(record, staleness.code(record.spec)) for record in records.collect()]
    known: dict[str, set[str]] = {}
    stale = []
    for record, code in held:
        if staleness.stale(record):
            stale.append((record, code))
        elif record.code != code:
            known.setdefault(record.code, set()).add(code)
    kinds = {record.spec.kind for record, _ in stale}
    after = computed(CHECKOUT, kinds)["outputs"] if kinds else {}
    for commit in commits if kinds else ():
        before = computed_by(commit, kinds)
        was = before["outputs"]
        for name in sorted(was.keys() | after.keys()):
            print(commit, "equal  " if was.get(name) == after.get(name) else "DIFFERS", name, flush=True)
        equal = {name for name in was if was[name] == after.get(name)}
        for record, code in stale:
            kind = record.spec.kind + (f" {record.spec.details['rung']}" if record.spec.kind == "ladder" else "")
            proven = record.code in before["fresh"] and {f"{kind}/{record.spec.model}", f"{kind}/*"} & equal
            if proven:
                known.setdefault(record.code, set()).add(code)
    TABLE.write_text(
        json.dumps({old: sorted(new) for old, new in known.items()}, indent=1, sort_keys=True) + "\n", encoding="ascii"
    )
    manifest.write()
    print(f"Written: {TABLE.relative_to(CHECKOUT)}, {len(known)} entries")


if __name__ == "__main__":
    main(*sys.argv[1:])
