"""The house keeps its own rules: layers, pins, file sizes, documents that say what is so."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from healthfm_client.site.site_policy import SitePolicy
from healthfm_core import errors
from healthfm_core.config.compose import compose
from healthfm_core.error_codes import CODES
from healthfm_core.federation import protocol
from healthfm_core.tokens.statistics import SiteStatistics
from healthfm_core.tokens.values import Sketch
from tests import exit_codes

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = (
    *("healthfm_core", "server", "client", "simulations"),
    *("distribution", "benchmarks", "tests"),
)
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
SHIPPED = [file for file in SOURCES if file.relative_to(ROOT).parts[0] != "tests"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def offenders(files, pattern: str) -> list[str]:
    """Lines that match, as file:line."""
    wanted = re.compile(pattern)
    return [
        f"{name(file)}:{number}"
        for file in files
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if wanted.search(line)
    ]


def test_the_import_contracts_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_one_package_imports_what_flower_does_not_publish():
    published = r"flwr\.(app|clientapp|serverapp|simulation)(?= import)"
    private = rf"^\s*(from|import) (?!{published})flwr\b"
    files = {line.partition(":")[0] for line in offenders(SHIPPED, private)}
    assert {file for file in files if not file.startswith("healthfm_core/flower/")} == {
        "benchmarks/server_memory.py",  # a double of Flower's server
        "benchmarks/public_port.py",  # the nodes that it lets call
    }


def test_the_readme_quotes_the_layers_that_are_enforced():
    readme = (ROOT / "README.md").read_text()
    for contract in PROJECT["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            assert "\n".join(contract["layers"]) in readme, contract["name"]


def test_exit_codes_page_is_made_from_the_errors():
    page = (ROOT / "docs" / "exit-codes.md").read_text()
    assert page == exit_codes.page(), "python tests/exit_codes.py > docs/exit-codes.md"


def test_every_error_says_what_was_wanted_and_what_to_do():
    silent = []
    for file in SHIPPED:
        for node in ast.walk(ast.parse(file.read_text())):
            if is_error(node) and isinstance(node.args[0], ast.Constant):
                usual, given = CODES[node.args[0].value], {word.arg for word in node.keywords}
                if not ("wanted" in given or usual.wanted) or not ("do" in given or usual.do):
                    silent.append(f"{name(file)}:{node.lineno}")
    assert silent == []


def is_error(node: ast.AST) -> bool:
    families = {family.__name__ for family in errors.HealthFMError.__subclasses__()}
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return call and node.func.id in families and bool(node.args)


def test_every_number_belongs_to_one_family():
    families = exit_codes.families()
    assert {number // 100 for number in CODES} <= set(families)
    codes = [family.exit_code for family in families.values()]
    assert len(set(codes)) == len(codes)
    assert not {0, 1} & set(codes)


def test_errors_are_raised_with_the_numbers_of_their_family():
    wrong = []
    for hundred, family in exit_codes.families().items():
        wanted = re.compile(rf"\b{family.__name__}\(\s*(\d+)")
        for file in SHIPPED:
            wrong += [
                f"{name(file)}: {family.__name__}({number})"
                for number in wanted.findall(file.read_text())
                if int(number) not in CODES or int(number) // 100 != hundred
            ]
    assert wrong == []


def no_statistics() -> SiteStatistics:
    count, real = np.zeros(0, np.int64), np.zeros(0)
    return SiteStatistics(
        codes=(),
        subjects=count,
        timed_subjects=count,
        visits=count,
        reached=count,
        sites=count,
        all_visits=np.zeros(1, np.int64),
        sketch=Sketch(np.zeros(0, np.int32), np.zeros(0, np.int32), count),
        panel=(),
        panel_subjects=count,
        panel_sites=count,
        channels=(),
        channel_subjects=count,
        channel_sum=real,
        channel_square=real,
        channel_hz=real,
        channel_sites=count,
        modality_subjects=np.zeros(3, np.int64),
        label_values=np.zeros(2, np.int64),
    )


def test_the_privacy_page_names_every_record_that_leaves():
    page = (ROOT / "docs" / "privacy.md").read_text()
    records = {protocol.ORDER, protocol.SITE, protocol.ARRAYS, protocol.WEIGHTS, protocol.METRICS}
    records |= {protocol.SECURE_MESSAGE}
    messages = {protocol.STATISTICS, protocol.PREPARE, protocol.TRAIN}
    messages |= {protocol.KEYS, protocol.SHARES, protocol.UNMASK}
    wanted = records | messages | set(no_statistics().to_arrays()) | set(SitePolicy().metrics)
    assert {word for word in wanted if f"`{word}`" not in page} == set()


def test_no_file_is_longer_than_500_lines():
    long = {name(file): len(file.read_text().splitlines()) for file in SOURCES}
    assert {file: lines for file, lines in long.items() if lines > 500} == {}


def test_nothing_received_is_ever_unpickled_or_run():
    forbidden = (
        r"^\s*(import|from)\s+(pickle|cloudpickle|dill|shelve|marshal|joblib)\b"
        r"|torch\.(load|save)\(|allow_pickle\s*=\s*True|(?<![.\w])(eval|exec)\("
    )
    assert offenders(SHIPPED, forbidden) == []


def test_nothing_is_left_for_later():
    words = "|".join(["TO" + "DO", "FIX" + "ME", "NotImplemented" + "Error", "XX" + "X"])
    assert offenders([*SOURCES, *PAGES, *CONFIGS, ROOT / "Makefile"], rf"\b({words})\b") == []


def test_no_path_of_a_machine_is_written_down():
    files = [*SOURCES, *PAGES, *CONFIGS, ROOT / "Makefile", ROOT / "constraints.txt"]
    here = [
        re.escape(f"{folder}/") for folder in (ROOT.parent, Path.home()) if len(str(folder)) > 1
    ]
    assert offenders(files, "|".join(here)) == []


def test_every_module_says_what_it_is_for():
    silent = [name(file) for file in SHIPPED if not re.match(r'r?"""\S', file.read_text())]
    assert silent == []


def test_every_requirement_is_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(item for extra in extras for item in extra)]
    assert {re.match(r"[\w-]+", item)[0] for item in wanted} <= pinned


def test_make_has_the_targets_that_the_readme_names():
    for target in ("install", "simulate", "test", "check", "bench", "clean"):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, target


def test_the_changelog_opens_with_this_version():
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    released = [version for version in versions if version != "Unreleased"]
    assert released[0] == PROJECT["project"]["version"]
    assert "Unreleased" not in versions[1:]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def commands() -> list[str]:
    """Every healthfm-simulate line that a document or a config's head shows."""
    shown = set()
    for file in [*PAGES, *CONFIGS]:
        for line in re.findall(r"healthfm-simulate((?: +[\w.]+=[^\s`)]+)+)", file.read_text()):
            shown.add(line.strip())
    return sorted(shown)


@pytest.mark.parametrize("line", commands())
def test_commands_in_the_documents_compose(line: str):
    compose(shlex.split(line))
