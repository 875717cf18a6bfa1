"""Several hosts: the same command is started on each of them, with --distributed.

Before JAX connects them they call the roll: JAX ends a process that waited in vain with a stack
trace, and does not say for whom.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
from rich.console import Console
from support.flags import FlagError

from jaxtickets.engine import hosts

T = TypeVar("T")
LONGEST = 1000
"""Bytes of a line of the roll call; whoever sends more is none of us."""
LEAVING = 20
"""Seconds that a host which ends waits for the others to end."""


class HostError(FlagError):
    """A host that did not come, or that is not who it should be."""


class Roll(NamedTuple):
    """Who is called: `address` is host 0's, as host:port."""

    address: str
    count: int
    number: int


def join(wait: float) -> None:
    """Connect this process with those on the other hosts; afterwards `jax.devices()` are all.

    Host 0 is the only one that prints, but for errors.

    Args:
      wait: seconds in which all have to come.

    Raises:
      FlagError: nothing says where the others are.
      HostError: some did not come in time, or two have the same number; says which.
    """
    roll = from_environment(os.environ)
    also: dict[str, Any] = {}
    if roll is not None:
        call(roll, wait)
        also = {
            "coordinator_address": roll.address,
            "num_processes": roll.count,
            "process_id": roll.number,
        }
    with _limited(wait + 30):  # of Cloud TPU and others JAX knows where they are, and waits
        try:
            jax.distributed.initialize(
                initialization_timeout=int(wait) + 60, shutdown_timeout_seconds=LEAVING, **also
            )
        except ValueError as error:
            if "should be defined" not in str(error) and "must be defined" not in str(error):
                raise
            raise FlagError(
                "--distributed: nothing says where the other hosts are. Start the command by srun,"
                " or on every host of a TPU slice, or set on every host JAX_COORDINATOR_ADDRESS"
                " (HOST:PORT of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID (from 0)."
            ) from None
    if jax.process_index():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def together(work: Callable[[], T]) -> T:
    """What `work` returns, of files that host 0 makes before the others look for them."""
    return hosts.everywhere(work, first_alone=True)


def writes() -> bool:
    """Whether this host is the one that writes files."""
    return jax.process_index() == 0


def end() -> None:
    """Wait for the hosts that are not done yet."""
    hosts.exchange({})


def leave(error: Exception) -> NoReturn:
    """End this process, as a computation of all hosts failed in it: most likely one of them is
    gone. What JAX does at the end of a process would wait for that one.
    """
    reason = " ".join(str(error).split())[:300]
    Console(stderr=True).print(
        f"host {jax.process_index()}: a computation over all hosts failed, as it does when one of"
        f" them is lost ({reason}). The same command on every host resumes from the last"
        " checkpoint.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    sys.stdout.flush()
    os._exit(1)


def from_environment(environment: Any) -> Roll | None:
    """The roll as JAX's own variables or SLURM's have it; None where others have to say.

    Raises:
      FlagError: variables that are incomplete, or no numbers.

    >>> from_environment({"JAX_COORDINATOR_ADDRESS": "a:1234", "JAX_NUM_PROCESSES": "2",
    ...     "JAX_PROCESS_ID": "1"})
    Roll(address='a:1234', count=2, number=1)
    >>> from_environment({"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "gpu[003-004],b1",
    ...     "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    Roll(address='gpu003:61447', count=3, number=0)
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [name for name in names if environment.get(name)]
    slurm = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    if len(given) == len(names):
        address, count, number = (environment[name] for name in names)
    elif all(f"SLURM_{name}" in environment for name in slurm):
        # Host and port as JAX takes them: the first of the list, by the number of the job.
        job, nodes, count, number, _ = (environment[f"SLURM_{name}"] for name in slurm)
        first = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", nodes)
        port = environment.get("JAX_COORDINATOR_PORT") or int(job) % 2**12 + 61440
        address = f"{first[1]}{first[2] or ''}:{port}" if first else ""
        address = environment.get(names[0]) or address
    elif given and given != [names[0]]:
        missing = ", ".join(name for name in names if name not in given)
        raise FlagError(f"--distributed: {', '.join(given)} is set, and {missing} is not.")
    else:
        return None
    if not re.fullmatch(r".+:\d{1,5}", address):
        raise FlagError(f"--distributed: the first host is HOST:PORT; got {address!r}.")
    if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
        raise FlagError(
            f"--distributed: hosts are numbered from 0 to one less than their count; got {number!r}"
            f" of {count!r}."
        )
    return Roll(address, int(count), int(number))


def call(roll: Roll, wait: float) -> None:
    """Return when all are there.

    Raises:
      HostError: some are not, in time; says which. Two have one number, or another count.
    """
    if roll.count == 1:
        return
    until = time.monotonic() + wait
    failure = _listen(roll, until) if roll.number == 0 else _report(roll, until)
    if failure:
        raise HostError(
            f"--distributed: {failure} Start the same command on every host; --wait gives them more"
            f" than {wait:g} seconds."
        )


def _listen(roll: Roll, until: float) -> str:
    """Host 0: who calls, until all have; then all are told. What is wrong, or nothing."""
    port = int(roll.address.rpartition(":")[2])
    there: dict[int, str] = {}
    callers: list[socket.socket] = []
    failure = ""
    with contextlib.ExitStack() as closing:
        server = closing.enter_context(_server(port))
        while len(there) < roll.count - 1 and not failure:
            server.settimeout(max(until - time.monotonic(), 0.01))
            try:
                caller = closing.enter_context(server.accept()[0])
            except TimeoutError:
                failure = _missing(roll, there)
                break
            said = _line(caller)
            if said is None:
                continue
            callers.append(caller)
            number, count, name = said["number"], said["count"], said["name"]
            if count != roll.count:
                failure = f"host {number} ({name}) is one of {count}, and host 0 of {roll.count}."
            elif number in there or not 0 < number < roll.count:
                other = there.get(number, socket.gethostname())
                failure = f"{name} and {other} are both host {number}."
            there[number] = name
        for caller in callers:
            with contextlib.suppress(OSError):
                caller.sendall(json.dumps({"failure": failure}).encode()[: LONGEST - 1] + b"\n")
    return failure


def _server(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise HostError(
            f"--distributed: host 0 cannot listen at port {port}: {error.strerror}. Give another"
            " one in JAX_COORDINATOR_ADDRESS."
        ) from None


def _missing(roll: Roll, there: dict[int, Any]) -> str:
    missing = [number for number in range(1, roll.count) if number not in there]
    shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
    which = f"host {shown}" if len(missing) == 1 else f"hosts {shown}"
    return f"{len(missing)} of {roll.count} hosts did not come: {which}, counted from 0."


def _report(roll: Roll, until: float) -> str:
    """Another host: it calls host 0 until that hears, and waits for what it says."""
    name, _, port = roll.address.rpartition(":")
    said = {"number": roll.number, "count": roll.count, "name": socket.gethostname()}
    while (left := until - time.monotonic()) > 0:
        try:
            with socket.create_connection((name.strip("[]"), int(port)), timeout=left) as line:
                line.sendall(json.dumps(said).encode() + b"\n")
                # Host 0 may have begun to wait later.
                line.settimeout(left + 30)
                heard = _read(line)
                if heard is not None and "failure" in heard:
                    return str(heard["failure"])
        except OSError:
            pass
        time.sleep(min(0.5, max(left, 0)))
    return f"host 0 does not answer at {roll.address}."


def _line(caller: socket.socket) -> dict[str, Any] | None:
    """What a host says of itself; None of anybody else."""
    caller.settimeout(5)
    said = _read(caller)
    try:
        assert said is not None
        return {
            "number": int(said["number"]),
            "count": int(said["count"]),
            "name": str(said["name"])[:100],
        }
    except (AssertionError, KeyError, TypeError, ValueError):
        return None


def _read(line: socket.socket) -> dict[str, Any] | None:
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < LONGEST:
            if not (more := line.recv(LONGEST - len(text))):
                break
            text += more
        said = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End the process with one line where the block takes longer: JAX would end it with many."""

    def give_up() -> None:
        Console(stderr=True).print(
            f"HostError: --distributed: not all hosts were connected after {seconds:.0f} seconds;"
            " look whether the command runs on every one of them.",
            highlight=False,
            soft_wrap=True,
        )
        os._exit(2)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
