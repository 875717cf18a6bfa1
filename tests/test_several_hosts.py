"""The command line on several hosts: who is called, who did not come, and one run of all that did."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("experiments_are_importable", "programs_are_compiled_once")
EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def everybody(address, members, wait):
    """What a roll call of those (count, number) ends with, for each; "" where all is well."""
    from support import hosts

    ends = [""] * len(members)

    def one(place, count, number):
        try:
            hosts.call(hosts.Roll(address, count, number), wait)
        except hosts.HostError as error:
            ends[place] = str(error)

    threads = [threading.Thread(target=one, args=(i, *member)) for i, member in enumerate(members)]
    for thread in reversed(threads):  # host 0 may come last
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def test_all_that_are_called_come(address):
    assert everybody(address, [(4, 0), (4, 1), (4, 2), (4, 3)], 60) == [""] * 4
    assert everybody(address, [(2, 0), (2, 1)], 60) == [""] * 2  # at the same port again


def test_those_who_do_not_come_are_named_on_every_host(address):
    for said in everybody(address, [(5, 0), (5, 2), (5, 4)], 3):
        assert "2 of 5 hosts did not come: hosts 1, 3, counted from 0." in said
        assert "--wait gives them more than 3 seconds" in said


def test_without_the_first_host_the_others_say_where_they_looked(address):
    (said,) = everybody(address, [(2, 1)], 1)
    assert f"host 0 does not answer at {address}" in said


def test_two_of_one_number_and_another_count_are_named(address):
    for said in everybody(address, [(3, 0), (3, 1), (3, 1)], 20):
        assert said.startswith(f"--distributed: {socket.gethostname()} and ")
        assert "are both host 1." in said
    for said in everybody(address, [(2, 0), (3, 1)], 20):
        assert "is one of 3, and host 0 of 2." in said


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b"{}\n", b"x" * 5000, b""])
def test_strangers_that_call_are_not_heard(address, text):
    def stranger():
        for _ in range(100):
            try:
                with socket.create_connection(("localhost", int(address.split(":")[1]))) as line:
                    line.sendall(text)
                return
            except OSError:
                time.sleep(0.05)

    thread = threading.Thread(target=stranger)
    thread.start()
    said = everybody(address, [(2, 0)], 2)
    thread.join()
    assert "1 of 2 hosts did not come: host 1," in said[0]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES is set, and JAX_COORDINATOR_ADDRESS, "),
        (
            {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "the first host is HOST:PORT; got 'a'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "from 0 to one less than their count; got '2' of '2'",
        ),
    ],
)
def test_variables_that_cannot_be_are_told(environment, message):
    from support import flags, hosts

    with pytest.raises(flags.FlagError, match=message):
        hosts.from_environment(environment)


def test_an_address_alone_leaves_count_and_number_to_the_cloud():
    from support import hosts

    assert hosts.from_environment({"JAX_COORDINATOR_ADDRESS": "a:1234"}) is None


def start(address, number, count, *flags):
    environment = dict(os.environ)
    if address:
        environment |= {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(number),
        }
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    distributed = ["--distributed"] if count is not None else []
    command = [sys.executable, str(EXPERIMENTS / "edst_cifar.py"), *distributed, *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def end(process):
    out, said = process.communicate(timeout=550)
    return process.returncode, out, said


SHORT = ("--members", "2", "--explore", "0.2", "--refine", "0.2", "--validation", "1000")


def test_one_command_on_two_hosts_is_one_run(address, tmp_path):
    flags = (*SHORT, "--out", str(tmp_path / "run"))
    first, second = (end(one) for one in [start(address, n, 2, *flags) for n in range(2)])
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "collected 1 ticket" in first[2]
    assert "collected" not in second[2]
    assert "wrote" in first[1]
    assert [line for line in second[1].splitlines() if line and "Gloo" not in line] == []
    results = json.loads((tmp_path / "run" / "results.json").read_bytes())
    assert len(results["members"]) == 2


def stop_in_training(process, number):
    """The signal, once the run has begun to train."""
    said = ""
    while "phase 2" not in said:
        assert process.poll() is None, said
        said += process.stderr.readline()
    process.send_signal(number)
    status, out, more = end(process)
    return status, out, said + more


def test_sigterm_ends_a_command_by_a_status_of_its_own_and_a_word_on_resuming(tmp_path):
    flags = (*SHORT, "--out", str(tmp_path / "run"))
    status, out, said = stop_in_training(start("", None, None, *flags), signal.SIGTERM)
    assert status == 75
    assert "SIGTERM: " in said
    assert "run the same again to go on." in " ".join(said.split())
    assert "Traceback" not in said
    status, out, said = end(start("", None, None, *flags))
    assert status == 0, said
    assert "going on with" in said


@pytest.mark.slow
def test_a_lost_host_ends_the_others_in_one_line_and_all_resume(address, tmp_path):
    flags = (*SHORT, "--explore", "3", "--checkpoint-every", "0", "--out", str(tmp_path / "run"))
    first, second = (start(address, n, 2, *flags) for n in range(2))
    while not list((tmp_path / "run").glob("checkpoints/*/place")):
        assert first.poll() is None
        time.sleep(0.1)
    second.kill()
    assert end(second)[0] == -signal.SIGKILL
    status, _, said = end(first)
    assert status == 1
    assert "host 0: a computation over all hosts failed" in said
    assert "The same command on every host resumes from the last checkpoint." in said
    for status, _, said in [end(one) for one in [start(address, n, 2, *flags) for n in range(2)]]:
        assert status == 0, said


def test_a_host_that_never_comes_and_hosts_that_nobody_names_are_one_line(address, tmp_path):
    late = start(address, 0, 2, "--wait", "2", "--out", str(tmp_path))
    nobody = start("", 0, 0, "--out", str(tmp_path))
    status, _, said = end(late)
    assert status == 2
    assert "HostError: --distributed: 1 of 2 hosts did not come: host 1, counted from 0." in said
    status, _, said = end(nobody)
    assert status == 2
    assert said.startswith("FlagError: --distributed: nothing says where the other hosts are.")
    assert len(said.splitlines()) == 1
