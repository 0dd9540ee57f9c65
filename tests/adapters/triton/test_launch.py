"""Flags, ports and the log of a server that we start."""

import socket
from pathlib import Path

import pytest

from model_analyzer.adapters.triton.launch import PORTS, Launch, check_ports_free, free_ports, merge_flags, remedy
from model_analyzer.adapters.triton.log_file import LogFile
from model_analyzer.errors import ExportPathError, ServerError


def test_a_users_flag_wins_and_stands_once():
    flags = merge_flags({"http-port": "1", "exit-timeout-secs": "5"}, [("http_port", "8000"), ("--log-verbose", "1")])
    assert flags == [("http-port", "8000"), ("exit-timeout-secs", "5"), ("log-verbose", "1")]


def test_settings_of_a_repeatable_flag_stand_beside_each_other():
    ours = {"backend-config": "python,shm-region-prefix-name=ours_"}
    other = ("backend-config", "python,shm-default-byte-size=2097152")
    assert merge_flags(ours, [other]) == [*ours.items(), other]
    same = ("backend-config", "python,shm-region-prefix-name=theirs_")
    assert merge_flags(ours, [same]) == [same]


@pytest.mark.parametrize(("interval_s", "flag_ms"), [(1.0, "500"), (0.1, "50"), (0.001, "10"), (2.5, "1250")])
def test_the_server_refreshes_its_gauges_twice_as_often_as_it_is_scraped(interval_s, flag_ms):
    launch = Launch(Path("/models"), Path("/log"), monitoring_interval_s=interval_s)
    assert launch.flags()["metrics-interval-ms"] == flag_ms


def test_a_port_in_use_is_refused_with_its_flag():
    http, grpc, metrics = free_ports("127.0.0.1", 3)
    flags = dict(zip(PORTS, (str(http), str(grpc), str(metrics)), strict=True))
    check_ports_free("127.0.0.1", flags)
    with socket.create_server(("127.0.0.1", grpc)):
        with pytest.raises(ServerError, match=f"triton_server_flags: grpc-port: {grpc} cannot be used: .*in use"):
            check_ports_free("127.0.0.1", flags)


def test_a_port_that_is_none_is_refused():
    with pytest.raises(ServerError, match="http-port: eighty cannot be used"):
        check_ports_free("127.0.0.1", {"http-port": "eighty"})


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("Socket '0.0.0.0:8000' already in use", "choose another port"),
        ("tritonserver: unrecognized option '--nonsense'", "correct triton_server_flags"),
        ("error while loading shared libraries: libb64.so.0d: cannot open", "LD_LIBRARY_PATH"),
        ("error: creating server: Internal - failed to stat file /nonexistent", "check model_repository"),
        ("something new", "see /export/triton.log"),
    ],
)
def test_known_causes_of_death_have_a_remedy(line, fix):
    assert fix in remedy([line], Path("/export/triton.log"))


def test_the_log_is_appended_to_but_its_tail_is_of_this_start(tmp_path):
    log = LogFile(tmp_path / "sub" / "triton.log")
    with log.open(["tritonserver", "--a=1"]) as stream:
        stream.write(b"old\n")
    with log.open(["tritonserver", "--a=2"]) as stream:
        stream.write(b"".join(b"line %d\n" % n for n in range(20)))
    assert log.tail(3) == ["line 17", "line 18", "line 19"]
    assert len(log.tail(100)) == 20
    text = log.path.read_text()
    assert "model-analyzer starts: tritonserver --a=1\nold\n# 20" in text


def test_errors_of_a_piece_of_the_log_come_without_time_and_place(tmp_path):
    log = LogFile(tmp_path / "triton.log")
    error = "E1124 09:06:14.917449 9711 model_repository_manager.cc:1460] \"Poll failed for model directory 'm'\"\n"
    with log.open([]) as stream:
        stream.write(error.replace("'m'", "'before'").encode())
        stream.flush()
        mark = log.mark()
        stream.write(("I1124 09:06:14.9 9711 a.cc:1] x\n" + error + error).encode())
    assert log.errors_since(mark) == ["Poll failed for model directory 'm'"]


def test_a_log_that_cannot_be_written_is_the_export_paths_fault(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExportPathError, match="log cannot be written"):
        LogFile(tmp_path / "file" / "triton.log").open([])


def test_a_log_that_is_gone_has_no_tail(tmp_path):
    assert LogFile(tmp_path / "triton.log").tail() == []
