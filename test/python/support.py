"""Servers and clients for the tests of python-socketio, which end with the test.

Everything listens on a free port of 127.0.0.1 and works in a directory of its own. Environment: `CARGO_TARGET_DIR`, and
`PATIENCE`, a factor for slow machines by which every waiting time is multiplied.
"""

import atexit
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import socketio

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ROOT / os.environ.get('CARGO_TARGET_DIR', 'target') / 'debug/examples/matrix'
CLUSTER = ROOT / 'test/support/matrix_cluster.mjs'

# A short heartbeat, so that it takes part in every case, and much time to answer.
HEARTBEAT = {'PING_INTERVAL': '500', 'PING_TIMEOUT': '20000'}

# How long a test waits for what should happen at once, in seconds.
PATIENCE = 10 * float(os.environ.get('PATIENCE', '1'))

# The client handles each packet in a thread of its own, and counts on its having read one before the next comes: an
# attachment is nothing without the packet before it. On a busy machine Python may change threads in between. It does
# so after 5 ms unless told otherwise.
sys.setswitchinterval(1)

# Faults that the client logs on its way are what the tests bring about.
logging.disable(logging.ERROR)


def eventually(probe, what):
    """Waits until `probe` returns something true, and returns that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f'{what}: not within {PATIENCE} s')
        time.sleep(0.02)


class Server:
    """The server of the matrix (test/client/matrix_server.rs). Its address stays the same when it is started again."""

    def __init__(self, on_end):
        self.directory = tempfile.TemporaryDirectory(prefix='sockhop-')
        self.url = None
        self.process = None
        on_end(self.directory.cleanup)
        on_end(self.kill)
        atexit.register(self.kill)
        self.start()

    def start(self):
        log_path = Path(self.directory.name) / 'log'
        with open(log_path, 'w') as log:
            self.process = subprocess.Popen(
                [MATRIX],
                cwd=self.directory.name,
                env={
                    'PATH': os.environ['PATH'],
                    'HOST': '127.0.0.1',
                    'PORT': self.url.rsplit(':', 1)[1] if self.url else '0',
                    'DATA_DIR': self.directory.name,
                    **HEARTBEAT,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def listening():
            text = log_path.read_text()
            if self.process.poll() is not None:
                raise AssertionError(f'{MATRIX} ended before it listened:\n{text}')
            return re.search(r'listening on (http://[\d.]+:\d+)', text)

        self.url = eventually(listening, f'{MATRIX} listens')[1]

    def stop(self):
        """Ends it as an operator would. Returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self):
        """Ends it without a word."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Cluster:
    """Three servers of the matrix, whose balancer sends no two requests of a session in a row to the same."""

    def __init__(self, on_end):
        self.process = subprocess.Popen(
            ['node', CLUSTER],
            env={**os.environ, **HEARTBEAT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        on_end(self.end)
        listening = re.search(r'listening on (http://\S+)', self.process.stdout.readline())
        if not listening:
            raise AssertionError(f'{CLUSTER} ended before it listened')
        self.url = listening[1]

    def end(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


class Client:
    """A client, and what has come to it. Whatever it does is in `/matrix`, unless it is told otherwise."""

    def __init__(self, test, url, transports, **options):
        self.url = url
        self.transports = transports
        self.packets = Packets()
        self.socket = socketio.Client(
            reconnection_delay=0.05,
            reconnection_delay_max=0.2,
            randomization_factor=0,
            engineio_logger=self.packets,
            **options,
        )
        self.came = {}
        self._lock = threading.Lock()
        test.addCleanup(self.socket.shutdown)

    def keep(self, *events, namespace='/matrix'):
        """Keeps what comes under these names from now on: a list of arguments in `came[name]`, in the order of arrival."""
        for event in events:
            self.came[event] = []
            self.socket.on(event, self._keeper(event), namespace=namespace)

    def _keeper(self, event):
        def keep(*args):
            with self._lock:
                self.came[event].append(args)
        return keep

    def next(self, event, count=1):
        """Waits until so many have come, and returns the last of them."""
        return eventually(
            lambda: len(self.came[event]) >= count and self.came[event],
            f'{count} of {event} (there are {self.came[event]!r:.200})',
        )[count - 1]

    def connect(self, namespaces='/matrix', auth=None):
        """Connects, or raises `socketio.exceptions.ConnectionError`."""
        self.socket.connect(
            self.url,
            transports=self.transports,
            namespaces=namespaces,
            auth=auth,
            wait_timeout=PATIENCE,
        )
        return self

    def emit(self, event, data=None, namespace='/matrix'):
        self.socket.emit(event, data, namespace=namespace)

    def ask(self, event, data=None, namespace='/matrix'):
        """Emits and returns the ack: `None`, its argument, or a tuple of them."""
        return self.socket.call(event, data, namespace=namespace, timeout=PATIENCE)

    def leave(self):
        """Disconnects once all that it sent has been answered.

        While this client waits for the answer to a POST, it forgets what it still has to send when it disconnects, and its
        server learns of its end by its silence alone.
        """
        self.socket.eio.queue.join()
        self.socket.disconnect()

    def id(self, namespace='/matrix'):
        return self.socket.get_sid(namespace)


class Packets(logging.Logger):
    """The client's log of its transport, of which only this is kept: the number of heartbeats, and bad answers' statuses."""

    def __init__(self):
        super().__init__('packets')
        self.num_pings = 0
        self.statuses = []

    def info(self, message, *args, **_):
        if message.startswith('Received packet') and args[0] == 'PING':
            self.num_pings += 1

    def warning(self, message, *args, **_):
        if message.startswith('Unexpected status code'):
            self.statuses.append(args[0])
