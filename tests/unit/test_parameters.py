"""A query string taken apart: nothing is passed over, and the fault is named."""

import pytest

from feedsvc.core.problems import BadParameter, BadRequest
from feedsvc.feeds import parameters


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=", {"a": ""}),
        ("a", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x+y%20z%2Bw", {"a": "x y z+w"}),
        ("a=1;b=2", {"a": "1;b=2"}),
        ("name%2Eeq=%C3%A9", {"name.eq": "é"}),
    ],
)
def test_a_query_string_is_taken_apart(raw: str, found: dict[str, str]) -> None:
    assert parameters.parse(raw) == found


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ("a=1&a=1", "a"),
        ("%61=1&a=2", "a"),
        ("a=1&b=%00", "b"),
        ("b%00=1", "b"),
        ("a=1&b=%FF", "b"),
        ("b=%ED%A0%80", "b"),
        ("b=\udcff", "b"),
    ],
)
def test_the_parameter_at_fault_is_named(raw: str, named: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parameters.parse(raw)
    assert caught.value.parameter == named


@pytest.mark.parametrize("raw", ["%FF=1", "\udcff=1", "&".join(f"p{n}=1" for n in range(201))])
def test_a_parameter_without_a_name_is_a_bad_request(raw: str) -> None:
    with pytest.raises(BadRequest):
        parameters.parse(raw)


def test_two_hundred_parameters_may_stand() -> None:
    assert len(parameters.parse("&".join(f"p{n}=1" for n in range(200)))) == 200


def test_the_first_unknown_parameter_is_named_with_what_is_allowed() -> None:
    parameters.refuse_unknown(["a", "b"], ["a", "b", "c"])
    with pytest.raises(BadParameter) as caught:
        parameters.refuse_unknown(["a", "x", "y"], ["a", "b"])
    assert (caught.value.parameter, caught.value.allowed) == ("x", ["a", "b"])


def test_a_choice_is_one_of_its_words() -> None:
    words = {"0": False, "1": True}
    assert parameters.choice({"flag": "1"}, "flag", words, False) is True
    assert parameters.choice({}, "flag", words, False) is False
    with pytest.raises(BadParameter) as caught:
        parameters.choice({"flag": "yes"}, "flag", words, False)
    assert (caught.value.parameter, caught.value.allowed) == ("flag", ["0", "1"])


def test_what_a_reader_refuses_names_the_parameter_and_what_is_allowed() -> None:
    assert parameters.read("n", "7", int) == 7

    def refuse(_value: str) -> int:
        raise ValueError("a number")

    with pytest.raises(BadParameter, match=r"^n must be a number\.$") as caught:
        parameters.read("n", "x", refuse)
    assert (caught.value.parameter, caught.value.allowed) == ("n", ["a number"])
