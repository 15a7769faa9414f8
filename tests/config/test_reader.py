"""The tool of decoding: what is written twice, wrongly typed, unknown or missing, each told once and at its place."""

from __future__ import annotations

from collections.abc import Callable

from glacic.config.model import Config

Check = Callable[[str], list[str]]


def test_an_attribute_written_twice_is_told_at_the_second(errors: Check) -> None:
    (found,) = errors("rule_learning {\n  queues = 2\n  ¶queues = 3\n}")
    assert found == "queues is written twice: remove one of them; the first is in line 2"


def test_a_second_block_of_a_kind_that_is_single_is_told_and_still_read(errors: Check) -> None:
    found = errors("rule_learning {\n}\n¶rule_learning {\n  ¶queues = 0\n}")
    assert found[0] == "a second rule_learning block in the configuration: merge it into the one of line 1"


def test_unknown_names_are_told_with_what_may_be_meant(errors: Check) -> None:
    found = errors(
        "rule_learning {\n  ¶inline_mod = true\n  ¶xyzzy = 1\n  ¶zone {}\n}\n¶zoen {}\n¶foo = 1\n¶rule_learning = 1\n"
    )
    assert found[0] == 'unknown attribute inline_mod in rule_learning: did you mean "inline_mode"?'
    assert found[1].startswith("unknown attribute xyzzy in rule_learning: known here: cache_size, database,")
    assert found[2] == "unknown block zone in rule_learning: rule_learning has no blocks"
    assert found[3] == 'unknown block zoen in the configuration: did you mean "zone"?'
    assert found[4] == "unknown attribute foo in the configuration: known here: flowtable, include, integrity"
    assert found[5] == "rule_learning is a block: write `rule_learning { ... }`, without the equals sign"


def test_a_block_written_as_an_attribute_and_the_other_way_round(errors: Check) -> None:
    found = errors('zone "lan" {\n  ¶interfaces { }\n  ¶services = { dns = true }\n  networks = ["10.0.0.0/8"]\n}')
    assert found[0] == "interfaces is an attribute: write `interfaces = ...`"
    assert found[1] == "services is a block: write `services { ... }`, without the equals sign"


def test_wrong_types_are_told_in_words(errors: Check) -> None:
    found = errors(
        "rule_learning {\n"
        '  ¶enabled = "true"\n'
        "  ¶learning_mode = 1\n"
        '  ¶log_group = "100"\n'
        "  ¶queues = 1.5\n"
        "  ¶cache_size = true\n"
        "  ¶learn_for = 24\n"
        "  ¶fail_mode = [1]\n"
        '  ignore_networks = [¶["10.0.0.0/8"], ¶5, "10.1.0.0/16"]\n'
        "}"
    )
    assert found == [
        'enabled must be true or false, not the string "true": write true, without quotes',
        "learning_mode must be true or false, not the number 1: write true or false",
        'log_group must be a whole number, not the string "100": write 100, without quotes',
        "queues must be a whole number, not the number 1.5: write 1 to 256",
        "cache_size must be a whole number, not true: write 16 to 10000000",
        'learn_for must be a string, not the number 24: write "24"',
        'fail_mode must be one value, not a list: write "open" or "closed"',
        "ignore_networks has a list within its list: write one list",
        "the number 5 where text belongs: write it in quotes",
    ]


def test_unquoted_words_are_told_with_everything_else(errors: Check) -> None:
    found = errors(
        'rule_learning {\n  ¶enabled = yes\n  ¶learn_for = 24h\n  ¶quues = 2\n}\nzone "a" {\n  ¶interface = lan0\n}'
    )
    assert found[0] == 'enabled: unquoted word yes: write true, or did you mean quotes, "yes"?'
    assert found[1].startswith('learn_for: unquoted word 24h: did you mean quotes, "24h"?')


def test_a_misspelt_name_is_told_once(errors: Check) -> None:
    errors('zone "wan" {\n  ¶interfce = "wan0"\n}\npolicy "wan" "wan" {\n  rule "x" {\n    ¶acton = "drop"\n  }\n}')
    errors('¶zonee "lan" {\n}\npolicy "lan" "firewall" {}')
    errors('¶zone "lan" "x" {\n}\npolicy "lan" "x" {}')


def test_labels_are_counted(errors: Check) -> None:
    found = errors('¶zone {\n}\n¶policy "a" {\n}\n¶rule_learning "x" {\n}\n')
    assert found == [
        'zone has no labels: write `zone "NAME" { ... }`',
        'policy has 1 label: write `policy "FROM" "TO" { ... }`',
        "rule_learning has 1 label: write `rule_learning { ... }`",
    ]


def test_a_label_may_stand_without_quotes(valid: Callable[[str], Config]) -> None:
    assert valid('zone lan {\n  interface = "lan0"\n}').zones[0].name == "lan"


def test_a_label_has_to_be_text(errors: Check) -> None:
    found = errors('zone ¶"${x}" {\n  interface = "lan0"\n}')
    assert found[0].startswith("templates are not evaluated here")
