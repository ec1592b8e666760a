"""A cable between a browser and a page that a test can pull out: a TCP forwarder on this machine."""

import contextlib
import socket
import threading


class Cable:
    """Forwards a port of this machine to another one; `pull` cuts every connection, `plug` lets new ones through."""

    def __init__(self, port):
        self.target, self.open, self.plugged = port, [], True
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def pull(self):
        self.plugged = False
        for end in self.open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.open.clear()

    def plug(self):
        self.plugged = True

    def close(self):
        self.listener.close()
        self.pull()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.plugged:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.open += [near, far]
            for here, there in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(here, there), daemon=True).start()

    @staticmethod
    def _pass(here, there):
        with here, contextlib.suppress(OSError):
            while data := here.recv(65536):
                there.sendall(data)
        with contextlib.suppress(OSError):
            there.shutdown(socket.SHUT_WR)
