"""A real PostgreSQL for tests, from Debian's package, on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks.processes import descendants
from tests.builders.processes import free_port

USER, PASSWORD = "walkcut", "geheim"


class Postgres:
    """A server with one database and a password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs, self._data = programs, folder / "data"
        self._port = free_port()
        self.url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self._port}/postgres"
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        authentication = ["--username", USER, "--pwfile", str(folder / "password"), "--auth=scram-sha-256"]
        self._run("initdb", "--no-sync", *authentication)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "start", "--wait", "--log", str(self._data / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop all of the server's processes within the block, so that it accepts what is sent and answers nothing."""
        leader = int((self._data / "postmaster.pid").read_text().split()[0])
        processes = [leader, *descendants(leader)]
        try:
            for process in processes:
                os.kill(process, signal.SIGSTOP)
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def empty(self) -> None:
        """Drop all tables."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")

    def _run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, not as root, which they refuse."""
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            [str(self._programs / program), "-D", str(self._data), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            user=user,
            group=user,
            extra_groups=[] if user else None,
            cwd="/",
        )


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """Run a server until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="walkcut-postgres-"))  # pytest's folders are closed to other users
    try:
        server = Postgres(programs, folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
