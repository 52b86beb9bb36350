"""What callers, operators and the upstream do to a gateway while Prometheus watches: a good day, and everything that goes wrong."""

import itertools
import json
import socket
import threading
import urllib.error
import urllib.request

DETAIL = "/api/audience/detail"


def get(url, body=None, headers=None, patience=20):
    """What is answered, whatever the status."""
    headers = ({"content-type": "application/json"} if body else {}) | (headers or {})
    request = urllib.request.Request(url, body and json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=patience) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


class Load:
    """Threads that ask until they are told to stop."""

    def __init__(self, callers, operators, upstream):
        self.callers, self.operators, self.upstream = callers, operators, upstream
        self.stopped, self.held = threading.Event(), []
        self.first = 9007199254740993
        tasks = (self.ask, self.ask_again, self.ask_too_much, self.disturb, self.operate)
        self.threads = [threading.Thread(target=self.keep, args=(task,), daemon=True) for task in tasks]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)
        for connection in self.held:
            connection.close()

    def keep(self, task):
        """Does it over and over; that a gateway is told to fail is no failure."""
        for number in itertools.count():
            if self.stopped.wait(0.02):
                return
            try:
                task(number)
            except OSError:
                pass

    def look(self, body, **headers):
        """A lookup through the gateway."""
        return get(f"http://{self.callers}{DETAIL}", body, {name.replace("_", "-"): it for name, it in headers.items()})

    def ask(self, number):
        """Customers who are new, many at a time, so that the cache has to let go of others; and one who is nobody."""
        first = 1 + number * 40 % 8000
        self.look({"thirdIdList": [f"crm-2-{it}" for it in range(first, first + 60)], "phoneList": [f"139{number:08}"]})

    def ask_again(self, number):
        """The same few: hits, absences, and what is stale."""
        body = {"audienceUserIdList": [self.first + it for it in range(5)], "phoneList": ["13900000001"]}
        self.look(body, **({"cache_control": "no-cache"} if number % 10 == 0 else {}))

    def ask_too_much(self, number):
        """More than fits the queue, and what cannot be answered in time."""
        for part in range(3):
            self.look({"phoneList": [f"138{part}{number:05}{it:02}" for it in range(90)]}, prefer="wait=0")
        self.look({"phoneList": [f"137{number:05}{it:03}" for it in range(900)]}, prefer="wait=1")

    def disturb(self, _):
        """Somebody else whom the upstream counts with the gateway, and what passes through."""
        get(f"http://{self.upstream}/api/open{DETAIL}", {"phoneList": ["13800000000"]})
        get(f"http://{self.callers}/echo")
        self.stopped.wait(0.7)

    def operate(self, number):
        """Purges, events, writes."""
        customer = self.first + number % 5
        get(f"http://{self.operators}/events", {"event": "changeTag", "audienceUserId": customer})
        get(f"http://{self.callers}/audience/info/batchAdd", {"data": [{"audienceUserId": customer}]})
        get(f"http://{self.operators}/purge", {"audienceUserIdList": [self.first + (number + 2) % 5]})
        self.stopped.wait(0.3)

    def hold(self, address, count):
        """Connections that say nothing."""
        host, port = address.rsplit(":", 1)
        for _ in range(count):
            try:
                self.held.append(socket.create_connection((host, int(port)), timeout=5))
            except OSError:
                return
