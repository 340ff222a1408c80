"""A worker's process ends at once on a signal, and processes that it starts are not the worker."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

PROGRAM = """
import atexit, signal, sys
# Python leaves a signal ignored that the shell that started it ignores, as shells do in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
import torch
from whimbrel.torch import join
atexit.register(print, "a handler ran")
def main():
    log = open(sys.argv[1], "w") if sys.argv[1:] else None
    print("not written yet", file=log)
    model = torch.nn.Linear(1, 1)
    join([0.0], model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))

main()
"""


class Endings(unittest.TestCase):
    """A coordinator that accepts connections and never answers."""

    def setUp(self) -> None:
        self.coordinator = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.coordinator.close)
        self.coordinator.settimeout(60)
        address = f"127.0.0.1:{self.coordinator.getsockname()[1]}"
        variables = {"WHIMBREL_COORDINATOR": address, "WHIMBREL_RUN": "r-1", "WHIMBREL_WORKER": "1"}
        self.environment = {**os.environ, **variables}

    def start(self, *words: str, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_ctrl_c_while_it_connects(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        log = Path(folder.name) / "log"
        process = self.start(str(log))
        connection, _ = self.coordinator.accept()
        with connection:
            connection.settimeout(30)
            connection.recv(1)
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            while connection.recv(4096):
                pass
            self.assertLess(time.monotonic() - sent, 1, "the connection closes within a second")
        printed, errors = process.communicate(timeout=30)
        self.assertIn("KeyboardInterrupt", errors)
        self.assertEqual(process.returncode, -signal.SIGINT)
        # The process ends without taking PyTorch's modules down, and yet loses nothing of the program's.
        self.assertIn("a handler ran", printed)
        self.assertEqual(log.read_text(), "not written yet\n")

    def test_a_process_of_the_worker_is_not_the_worker(self) -> None:
        process = self.start(WHIMBREL_PROCESS="1")
        _, errors = process.communicate(timeout=60)
        self.assertRegex(errors, 'a worker has started this process.*if __name__ == "__main__"')
        self.coordinator.settimeout(0)
        with self.assertRaises(BlockingIOError):
            self.coordinator.accept()
