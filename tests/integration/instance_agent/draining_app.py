#!/usr/bin/env -S python3 -I -S
"""The `init` of an image: an application with a drain hook that gives the answers in its list.

Each POST gets the next one, the last one again and again. `posts` on the data disk gets a line for
each: when, what was asked, and the OS disks that lay ready then.
"""

import os
import socket
import time

ANSWERS = [202]  # statuses, and: `hang`, `drop` (no answer), `exit` (202, and it ends)

data = os.environ["ROLLCALL_DATA_DIR"]
disks = os.path.dirname(os.environ["ROLLCALL_OS_DIR"])
listener = socket.create_server((os.environ["ROLLCALL_ADDRESS"], int(os.environ["ROLLCALL_PORT"])))
with open(os.path.join(data, "listens"), "w"):
    pass  # there: that is all it says
answers: list[int | str] = [*ANSWERS]
while True:
    connection = listener.accept()[0]
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536) or b"\r\n\r\n"
    method, _, path = request.split(b"\r\n")[0].decode().removesuffix(" HTTP/1.1").partition(" ")
    if method != "POST":
        connection.close()
        continue
    ready = ",".join(sorted(os.listdir(disks)))
    with open(os.path.join(data, "posts"), "a") as posts:
        posts.write(f"{time.time():f} {path} {ready}\n")
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if answer == "hang":
        time.sleep(1000)
    if answer != "drop":
        status = 202 if answer == "exit" else answer
        head = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n"
        connection.sendall(head.encode())
    connection.close()
    if answer == "exit":
        os._exit(0)
