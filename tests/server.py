"""Stands in for `python` in a shell: each call is a process forked from one that has done the imports.

python server.py SOCKET PROGRAM starts it; `client(SOCKET)` is the text of the program that takes python's place.
"""

import gc
import json
import os
import runpy
import signal
import socket
import sys

import forked

CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
server.sendall(call)
process = int(server.recv(10, socket.MSG_WAITALL))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(process, number))
sys.exit(int(server.recv(4)))
"""


def client(path: str) -> str:
    return CLIENT.format(python=sys.executable, path=path)


def run(words: list[str]) -> None:
    """As `python` does with these words."""
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-":
        sys.argv, sys.path[0] = words, ""
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


def child(words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.executable = sys.argv[2]
    os._exit(forked.exit_code(lambda: run(words)))


def answer(connection: socket.socket) -> None:
    """Runs one call in a child, and tells its exit code."""
    length, files, *_ = socket.recv_fds(connection, 4, 3)
    call = b""
    while len(call) < int.from_bytes(length, "big"):
        call += connection.recv(2**16)
    if (process := os.fork()) == 0:
        child(*json.loads(call), files)
    connection.sendall(f"{process:10}".encode())
    for file in files:
        os.close(file)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    connection.sendall(str(code if code >= 0 else 128 - code).encode())
    connection.close()


def main() -> None:
    forked.imports("heavy")
    gc.freeze()
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
    print("ready", flush=True)
    while True:
        connection = server.accept()[0]
        if os.fork() == 0:  # so that what is called may call
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            os._exit(0)
        connection.close()


if __name__ == "__main__":
    main()
