"""Known vulnerabilities in what requirements/*.txt pins, by pip-audit and the OSV database.

Exit code 1: one is known. Where no advisory service answers, nothing is known: that is said loudly, with exit code 0,
so that a machine without the internet can still check the rest.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

PIP_AUDIT = [sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off", "--format=json"]
ROOT = Path(__file__).parent.parent
TIMEOUT_S = 90


def main() -> int:
    """Audit the files; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, default=sorted((ROOT / "requirements").glob("*.txt")))
    parser.add_argument("--osv-url", default="https://api.osv.dev/v1/query")
    arguments = parser.parse_args()
    told, reason = ask(arguments.files, arguments.osv_url)
    if not told:
        return warn(reason)
    known = [f"{one['name']} {one['version']}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'none yet'}"
             for one in told for vuln in one.get("vulns", [])]  # fmt: skip
    left_out = [f"{one['name']}: {one['skip_reason']}" for one in told if "skip_reason" in one]
    print(*known, sep="\n", end="\n" if known else "")
    print(f"audit: {len(told) - len(left_out)} packages looked up, {len(known)} known vulnerabilities")
    if left_out:
        warn("\n".join(left_out))
    return 1 if known else 0


def ask(files: list[Path], osv_url: str) -> tuple[list[dict], str]:
    """What is known of each package; nothing and why, where the service did not answer."""
    named = [argument for file in files for argument in ("--requirement", str(file))]
    command = [*PIP_AUDIT, "--vulnerability-service=osv", f"--osv-url={osv_url}", "--timeout=10", *named]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"pip-audit took more than {TIMEOUT_S} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        if "No module named" in done.stderr:
            sys.exit("audit: pip-audit is not installed; make setup-dev")
        return [], (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]


def warn(reason: str) -> int:
    """Say that something was not audited; 0."""
    line = "!" * 100
    print(f"{line}\nNOT AUDITED for known vulnerabilities: no advisory service answered\n{reason[:1000]}\n{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
