"""A worker's process ends at once on a signal, and processes that it starts are not the worker."""

import os
import signal
import socket
import subprocess
import sys
import time
import unittest

PROGRAM = """
import torch
from whimbrel.torch import join
model = torch.nn.Linear(1, 1)
join([0.0], model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
"""


class Endings(unittest.TestCase):
    """A coordinator that accepts connections and never answers."""

    def setUp(self) -> None:
        self.coordinator = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.coordinator.close)
        self.coordinator.settimeout(60)
        address = "127.0.0.1:{}".format(self.coordinator.getsockname()[1])
        variables = {"WHIMBREL_COORDINATOR": address, "WHIMBREL_RUN": "r-1", "WHIMBREL_WORKER": "1"}
        self.environment = {**os.environ, **variables}

    def start(self, program: str, **variables: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_ctrl_c_while_it_connects(self) -> None:
        process = self.start(PROGRAM)
        connection, _ = self.coordinator.accept()
        with connection:
            connection.settimeout(30)
            connection.recv(1)
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            while connection.recv(4096):
                pass
            self.assertLess(time.monotonic() - sent, 1, "the connection closes within a second")
        _, errors = process.communicate(timeout=30)
        self.assertIn("KeyboardInterrupt", errors)
        self.assertEqual(process.returncode, -signal.SIGINT)

    def test_a_process_of_the_worker_is_not_the_worker(self) -> None:
        process = self.start(PROGRAM, WHIMBREL_PROCESS="1")
        _, errors = process.communicate(timeout=60)
        self.assertRegex(errors, 'a worker has started this process.*if __name__ == "__main__"')
        self.coordinator.settimeout(0)
        with self.assertRaises(BlockingIOError):
            self.coordinator.accept()
