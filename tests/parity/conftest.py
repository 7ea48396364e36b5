"""The table of what was compared, at the end of the run."""


def pytest_terminal_summary(terminalreporter):
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "parity" and report.when == "call"
    ]
    if rows:
        terminalreporter.section("success in %, ours and TorchAttacks'")
        for row in rows:
            terminalreporter.write_line(row)
