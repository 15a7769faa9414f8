"""The tool of the validate modules: what counts as written, and what as readable."""

from __future__ import annotations

from glacic.config.check import Check
from glacic.config.reader import Report
from glacic.config.source import Source

SOURCE = Source("a.hcl", "proto = 1\nporto = 2\n")


def test_a_misspelt_attribute_is_not_written_and_a_broken_one_not_readable() -> None:
    first, second = SOURCE.span(0, 9), SOURCE.span(10, 19)
    report = Report(broken={second})
    check = Check({"proto": first, "dest_port": second}, report)
    assert check.written("proto")
    assert check.readable("proto")
    assert not check.written("dest_port")  # what stands there is another name
    assert not check.readable("dest_port")
    assert not check.usable("proto", "dest_port")
    assert check.usable("limit")


def test_an_element_that_was_left_out_is_told_at_its_attribute() -> None:
    report = Report()
    check = Check({"proto": SOURCE.span(0, 9), "proto[1]": SOURCE.span(8, 9)}, report)
    assert check.element("proto", 1).text == "1"
    assert check.element("proto", 0).text == "proto = 1"
    check.error("proto", "wrong", "mend it")
    assert [(one.summary, one.advice) for one in report.diagnostics] == [("wrong", "mend it")]
