"""Skips for a missing tool or host feature are counted by what is missing, and can be made failures.

Nothing here is judged by the clock, and nothing by how the caller treats signals (a shell starts background
jobs with SIGINT and SIGQUIT ignored).
"""

import signal
from collections import Counter
from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import settings

_missing: Counter[str] = Counter()


settings.register_profile("fakedev", deadline=None)
settings.load_profile("fakedev")


def pytest_configure() -> None:
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fakedev-require",
        action="store_true",
        help="fail where a test would skip because this host lacks something",
    )


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    long = report.longrepr
    text = long[2] if isinstance(long, tuple | list) else str(long)
    return str(text).removeprefix("Skipped: ")


def _is_missing(report: pytest.TestReport | pytest.CollectReport) -> bool:
    return report.outcome == "skipped" and not hasattr(report, "wasxfail")


def _judge(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if _is_missing(report) and config.getoption("--fakedev-require"):
        report.outcome = "failed"
        report.longrepr = f"--fakedev-require: {_reason(report)}"


def _count(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In the process that prints: with pytest-xdist the tests are run by others."""
    if _is_missing(report):
        _missing[_reason(report)] += 1


pytest_runtest_logreport = _count
pytest_collectreport = _count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge(report, collector.config)
    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    if not _missing:
        return
    terminalreporter.section("missing on this host")
    for reason, count in sorted(_missing.items()):
        terminalreporter.write_line(f"{count:5}  {reason}")
