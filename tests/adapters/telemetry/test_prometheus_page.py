from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from telemetry_pages import Replay, page, row

from model_analyzer.adapters.telemetry import prometheus
from model_analyzer.adapters.telemetry.dcgm import DcgmSampler
from model_analyzer.adapters.telemetry.prometheus import PageProblem, parse

MIB = 2**20


def problem_of(replay: Replay) -> str:
    scraped = DcgmSampler(replay.url).sample()
    assert not scraped.values
    assert scraped.problem is not None
    return scraped.problem


def names(text: str, prefix: str = "") -> list[str]:
    return [head.name for head, _ in parse(text, prefix).rows]


def numbers(text: str, known: prometheus.Known | None = None) -> list[tuple[str, dict[str, str], float]]:
    return [(head.name, dict(head.labels), value) for head, value in parse(text, "", known).rows]


def test_a_counter_keeps_the_name_that_the_page_gives_it() -> None:
    text = "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\nDCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION 5\n"
    assert names(text) == ["DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"]


def test_a_counter_whose_own_name_ends_in_total_keeps_it() -> None:
    assert names("# TYPE x_total counter\nx_total 5\n") == ["x_total"]


def test_labels_may_hold_any_character() -> None:
    (found,) = numbers(r'x{a="}, \"q\" \\ é"} 1')
    assert found == ("x", {"a": '}, "q" \\ é'}, 1)


PAGES = sorted((Path(__file__).parents[2] / "data").rglob("*.prom"))
PIECES = ("a", "b_1", "{", "}", ",", '="', '"', 'a="1"', 'b="x,y"', 'c=""', 'd="="', " # ")
HEADS = st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.sampled_from(
    ['a{a="1",b="x,y"}', 'a{c="",d="="}', "a{}"]
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_plain_lines_are_read_as_the_parser_reads_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = path.read_text()
    ours = numbers(text)
    monkeypatch.setattr(prometheus, "_plain_head", lambda _: None)
    assert ours == numbers(text)
    assert ours


@given(HEADS)
def test_a_head_that_is_plain_is_the_parsers(head: str) -> None:
    found = prometheus._plain_head(head)
    if found is not None:
        ((theirs, value),) = prometheus._rows([f"{head} 1"])
        assert (found.name, found.labels, 1) == (theirs.name, theirs.labels, value)


@given(st.text(alphabet="DCGM_{}=\"\\,# 1.\teNnai'\x00é\nTYPEHL", max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        found = parse(text).rows
    except PageProblem:
        return
    assert all(isinstance(value, float | int) for _, value in found)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf"])
def test_a_value_that_is_no_number_is_absent(value: str) -> None:
    assert parse(f"x {value}\n").rows == ()


def test_an_integer_beyond_any_float_is_a_broken_line() -> None:
    parsed = parse("x 1\ny 1" + 400 * "0" + "\n")
    assert [head.name for head, _ in parsed.rows] == ["x"]
    assert parsed.problem is not None
    assert len(parsed.problem) < 100


def test_only_the_names_asked_for_are_read() -> None:
    assert names("go_x 1\nnv_y 2\ngo_z 3\n", "nv_") == ["nv_y"]


def test_a_page_of_other_names_is_a_page_without_rows() -> None:
    assert parse("go_x 1\n", "nv_").rows == ()


def test_lines_may_end_as_on_windows() -> None:
    assert numbers("# TYPE x counter\r\nx 1\r\ny 2\r\n") == [("x", {}, 1), ("y", {}, 2)]


@given(
    st.lists(
        st.sampled_from(
            ["x", 'x{a="b"}', r'x{a="}, \"q\" 5"}', 'y{a="b",c=" # {} 3"}', "x # {} 3", "x{}", "x{} ", "x "]
        ),
        max_size=4,
    ),
    st.lists(
        st.sampled_from(
            [
                "1",
                "-2.5",
                "+7",
                "1e3",
                "1.5e999",
                " 4",
                "\t4",
                "4 ",
                "NaN",
                "3 1700000000",
                '3 # {t="y"} 3',
                "9223372036854775794",
                "",
            ]
        ),
        min_size=2,
    ),
)
def test_a_page_reads_the_same_whatever_was_read_before(heads: list[str], values: list[str]) -> None:
    known: prometheus.Known = {}
    for value in values:
        text = "".join(f"{head} {value}\n" for head in heads)
        try:
            anew = numbers(text, {})
        except PageProblem:
            continue
        assert numbers(text, known) == anew


def test_lines_that_differ_in_their_value_only_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known: prometheus.Known = {}
    numbers('x{a="b"} 1\n', known)
    monkeypatch.setattr(prometheus, "_rows", lambda _: pytest.fail("parsed"))
    assert numbers('x{a="b"} 2.5\n', known) == [("x", {"a": "b"}, 2.5)]


def test_labels_that_change_each_time_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_MOST_KNOWN", 10)
    known: prometheus.Known = {}
    for n in range(100):
        numbers(f'x{{job="{n}"}} 1\n', known)
    assert len(known) <= 10


def test_the_same_page_again_is_a_new_scrape_of_old_values(replay: Replay) -> None:
    replay.serve(row("DCGM_FI_DEV_GPU_UTIL", 10))
    sampler = DcgmSampler(replay.url)
    one, two = sampler.sample(), sampler.sample()
    replay.serve(row("DCGM_FI_DEV_GPU_UTIL", 20))
    three = sampler.sample()
    assert one.time_ns < two.time_ns
    assert (one.values, one.fingerprint) == (two.values, two.fingerprint)
    assert three.fingerprint != two.fingerprint


def test_an_error_status_is_named(replay: Replay) -> None:
    replay.status = 404
    assert "404" in problem_of(replay)


def test_an_empty_page_says_so(replay: Replay) -> None:
    assert problem_of(replay).endswith("the page is empty")


@pytest.mark.parametrize("text", ["<html><body>login</body></html>", '{"error": "no"}', "DCGM_FI_DEV_GPU_UTIL{ 1\n"])
def test_garbage_is_a_problem_and_no_exception(replay: Replay, text: str) -> None:
    replay.serve(text)
    assert "not a Prometheus page" in problem_of(replay)


def test_bytes_that_are_no_text_are_a_problem(replay: Replay) -> None:
    replay.body = b"DCGM_FI_DEV_GPU_UTIL \xff\xfe"
    assert "no text" in problem_of(replay)


def test_a_page_cut_short_is_a_problem(replay: Replay) -> None:
    replay.serve(row("DCGM_FI_DEV_GPU_UTIL", 10))
    replay.announce = len(replay.body) + 100
    assert f"{replay.url}: connection broke: closed after " in problem_of(replay)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"", "connection broke: closed without an answer"),
        (b"\x00\xffgarbage\r\n\r\n", "connection broke: no HTTP ("),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "connection broke: no HTTP ("),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            "closed after 2 bytes, and more were announced",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-", "connection broke: closed in the middle of an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n", "connection broke: "),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
            "is encoded (gzip), which was not asked for",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
    ],
)
def test_what_is_no_http_is_a_problem_of_one_line(said: bytes, told: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_say, args=(server, said))
        thread.start()
        problem = str(DcgmSampler(f"http://127.0.0.1:{server.getsockname()[1]}/metrics").sample().problem)
        thread.join()
    assert told in problem
    assert problem.isprintable()
    assert len(problem) < 300


def _say(server: socket.socket, said: bytes) -> None:
    connection, _ = server.accept()
    with connection, suppress(OSError):  # the client may have had enough
        connection.recv(65536)
        connection.sendall(said)


@pytest.mark.parametrize(
    "url", ["nonsense", "", "http://", "http://a b/", "ftp://x/", "http://127.0.0.1:99999/", "http://[::1/"]
)
def test_no_url_breaks_a_sampler(url: str) -> None:
    assert DcgmSampler(url).sample().problem


def test_a_slow_source_is_given_up_after_the_read_timeout(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "READ_S", 0.2)
    replay.serve(row("DCGM_FI_DEV_GPU_UTIL", 10))
    replay.delay_s = 60.0
    before = time.monotonic()
    assert "no answer within 0.2 s" in problem_of(replay)
    assert time.monotonic() - before < 20


def test_a_source_recovers_after_it_was_too_slow(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "READ_S", 0.2)
    replay.serve(row("DCGM_FI_DEV_GPU_UTIL", 10))
    sampler = DcgmSampler(replay.url)
    replay.delay_s = 60.0
    assert sampler.sample().problem
    replay.delay_s = 0.0
    # It may be too slow again, where this machine is.
    assert any(sampler.sample().values for _ in range(100))


def test_a_page_of_ten_megabytes_is_read(replay: Replay) -> None:
    filler = '# HELP x y\nx{a="1"} 1\n' * 500_000
    replay.serve(filler + row("DCGM_FI_DEV_FB_USED", 3))
    (value,) = DcgmSampler(replay.url).sample().values.values()
    assert len(replay.body) > 10_000_000
    assert value == 3 * MIB


def test_a_larger_page_than_the_limit_is_refused(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "PAGE_LIMIT", MIB)
    replay.serve(page("dcgm/l4_gpu-operator_full.prom") * 200)
    sampler = DcgmSampler(replay.url)
    assert str(sampler.sample().problem).endswith("the answer is larger than 1 MiB")
    replay.serve(page("dcgm/l4_gpu-operator_full.prom"))
    assert sampler.sample().values, "the connection with the unread rest must not be used again"


def test_the_connection_is_kept(replay: Replay) -> None:
    replay.serve(page("dcgm/t4_under_load_no_help_type.prom"))
    sampler = DcgmSampler(replay.url)
    for _ in range(5):
        sampler.sample()
    assert (replay.requests, len(replay.connections)) == (5, 1)


def test_a_page_is_stamped_inside_its_scrape(replay: Replay) -> None:
    replay.serve(page("dcgm/t4_under_load_no_help_type.prom"))
    before = time.monotonic_ns()
    stamped = DcgmSampler(replay.url).sample()
    assert before < stamped.time_ns < time.monotonic_ns()
    assert before <= stamped.time_ns - stamped.took_ns // 2
    assert 0 < stamped.took_ns < time.monotonic_ns() - before


def test_a_refused_connection_is_not_called_a_timeout() -> None:
    assert "refused" in str(DcgmSampler("http://127.0.0.1:1/metrics").sample().problem)


def test_a_dripping_source_is_given_up(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "READ_S", 1.0)
    replay.serve("#" * 10_000)
    replay.drip_s = 0.02
    before = time.monotonic()
    assert "no whole answer within 1 s" in problem_of(replay)
    assert time.monotonic() - before < 20, "the whole page would take 200 s"
