"""A full job with stomp.py. Arguments: port, version, and "first" or "again" (after a restart of the broker),
or the dialect of the listener. TLS, if TEST_CA names the authority of the broker; TEST_CERTIFICATE and TEST_KEY are what
to show it. TEST_LOGIN and TEST_PASSCODE say who it is."""

import os
import queue
import sys
import threading
import time

import stomp

PATIENCE = 20


class Inbox(stomp.ConnectionListener):
    """Everything that comes, for a thread that waits."""

    def __init__(self):
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.errors = queue.Queue()
        self.connected = {}
        self.beats = 0
        self.duplicates = 0
        self.here = threading.Event()
        self.gone = threading.Event()

    def on_connected(self, frame):
        self.connected = frame.headers
        self.here.set()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])
        self.duplicates += frame.headers.get("duplicate") == "true"

    def on_error(self, frame):
        self.errors.put(frame)

    def on_heartbeat(self):
        self.beats += 1

    def on_disconnected(self):
        self.gone.set()


class Client:
    """One connection; every request waits for its receipt."""

    def __init__(self, port, version, client_id=None, **options):
        kinds = {
            "1.0": stomp.StompConnection10,
            "1.1": stomp.StompConnection11,
            "1.2": stomp.StompConnection12,
        }
        self.version = version
        self.inbox = Inbox()
        self.count = 0
        self.conn = kinds[version]([("127.0.0.1", port)], reconnect_attempts_max=1, auto_decode=False, **options)
        if "TEST_CA" in os.environ:
            certificate = {"cert_file": os.environ.get("TEST_CERTIFICATE"), "key_file": os.environ.get("TEST_KEY")}
            self.conn.set_ssl(for_hosts=[("127.0.0.1", port)], ca_certs=os.environ["TEST_CA"], **certificate)
        self.conn.set_listener("inbox", self.inbox)
        account = {"username": os.environ.get("TEST_LOGIN"), "passcode": os.environ.get("TEST_PASSCODE")}
        self.conn.connect(wait=True, headers={"client-id": client_id} if client_id else {}, **account)
        # What connect() waits for is told before this listener is.
        check(self.inbox.here.wait(PATIENCE), "CONNECTED")
        # stomp.py drops the version header in 1.0; there the session alone says that it is connected.
        if version != "1.0":
            check(self.inbox.connected["version"] == version, "version", self.inbox.connected)

    def receipt(self):
        self.count += 1
        return f"r{self.count}"

    def wait(self, receipt):
        got = self.inbox.receipts.get(timeout=PATIENCE)
        check(got == receipt, "receipts in order", got, receipt)

    def send(self, destination, body, **headers):
        receipt = self.receipt()
        self.conn.send(destination, body, receipt=receipt, **headers)
        self.wait(receipt)

    def subscribe(self, destination, sub, ack, **headers):
        receipt = self.receipt()
        self.conn.subscribe(destination, id=sub, ack=ack, receipt=receipt, **headers)
        self.wait(receipt)

    def unsubscribe(self, sub, **headers):
        receipt = self.receipt()
        self.conn.unsubscribe(id=sub, receipt=receipt, **headers)
        self.wait(receipt)
        while not self.inbox.messages.empty():
            self.inbox.messages.get()

    def take(self, body=None):
        frame = self.inbox.messages.get(timeout=PATIENCE)
        if body is not None:
            check(bytes_of(frame) == body, "body", bytes_of(frame), body)
        return frame

    def nothing(self):
        """Nothing waits: a message of our own on a topic comes next."""
        self.subscribe("/topic/fence", "fence", "auto")
        self.conn.send("/topic/fence", "fence")
        self.take(b"fence")
        self.unsubscribe("fence")

    def settle(self, kind, frame, transaction=None, **more):
        receipt = self.receipt()
        act = getattr(self.conn, kind)
        headers = frame.headers
        if self.version == "1.0":
            act(headers["message-id"], transaction=transaction, receipt=receipt, **more)
        elif self.version == "1.1":
            act(headers["message-id"], headers["subscription"], transaction=transaction, receipt=receipt, **more)
        else:
            act(headers["ack"], transaction=transaction, receipt=receipt, **more)
        self.wait(receipt)

    def end(self, kind, transaction):
        receipt = self.receipt()
        getattr(self.conn, kind)(transaction, receipt=receipt)
        self.wait(receipt)

    def disconnect(self):
        receipt = self.receipt()
        self.conn.disconnect(receipt=receipt)
        self.wait(receipt)
        check(self.inbox.gone.wait(PATIENCE), "the connection ends after DISCONNECT")
        check(self.inbox.errors.empty(), "no ERROR")


def bytes_of(frame):
    return frame.body if isinstance(frame.body, bytes) else frame.body.encode()


def named(version, frame):
    """The delivery of a MESSAGE, as an order to the broker names it."""
    if version == "1.2":
        return {"id": frame.headers["ack"]}
    return {name: frame.headers[name] for name in ("message-id", "subscription")}


def check(fine, *what):
    if not fine:
        raise AssertionError(" ".join(map(repr, what)))


def first(port, version):
    client = Client(port, version)
    queue_of = lambda name: f"/queue/stomp-py-{version}-{name}"

    # Bodies and headers come through byte for byte.
    plain = queue_of("plain")
    binary = bytes(range(256)) * 20
    headers = {"number": "1", "greeting": "grüße"}
    if version != "1.0":
        headers["tricky"] = "a:b\\c\nd"
    client.send(plain, "hello", **headers)
    client.send(plain, binary, content_type="application/octet-stream")
    client.send(plain, "")
    client.subscribe(plain, "1", "auto")
    frame = client.take(b"hello")
    for name, value in headers.items():
        check(frame.headers[name] == value, "header", name, frame.headers)
    check(frame.headers["destination"] == plain, "destination", frame.headers)
    check(frame.headers["subscription"] == "1", "subscription", frame.headers)
    frame = client.take(binary)
    check(frame.headers["content-type"] == "application/octet-stream", "content-type", frame.headers)
    client.take(b"")
    client.unsubscribe("1")

    # An ACK in client mode settles what came before it, and no more.
    work = queue_of("client")
    for n in range(5):
        client.send(work, f"m{n}")
    client.subscribe(work, "2", "client")
    frames = [client.take(f"m{n}".encode()) for n in range(5)]
    client.settle("ack", frames[2])
    client.unsubscribe("2")
    client.subscribe(work, "2", "client")
    frames = [client.take(f"m{n}".encode()) for n in (3, 4)]
    check(all(f.headers["redelivered"] == "true" for f in frames), "redelivered")
    client.settle("ack", frames[1])
    client.nothing()
    client.unsubscribe("2")

    if version != "1.0":
        # In client-individual mode it settles one; a NACK brings one back.
        work = queue_of("individual")
        for n in range(3):
            client.send(work, f"m{n}")
        client.subscribe(work, "3", "client-individual")
        frames = [client.take(f"m{n}".encode()) for n in range(3)]
        client.settle("ack", frames[1])
        client.settle("nack", frames[0])
        back = client.take(b"m0")
        check(back.headers["redelivered"] == "true", "redelivered", back.headers)
        check(back.headers["message-id"] == frames[0].headers["message-id"], "message-id is stable")
        client.settle("ack", back)
        client.settle("ack", frames[2])
        client.nothing()
        client.unsubscribe("3")

    # A transaction over two queues with an ACK in it: nothing of it, then all of it.
    source, target = queue_of("source"), queue_of("target")
    client.send(source, "in")
    client.subscribe(source, "4", "client")
    frame = client.take(b"in")
    for end in ("abort", "commit"):
        tx = client.conn.begin(f"tx-{end}")
        client.send(target, f"out of {end}", transaction=tx)
        client.settle("ack", frame, transaction=tx)
        client.send(source, "in again", transaction=tx)
        client.end(end, tx)
    again = client.take(b"in again")
    client.settle("ack", again)
    client.subscribe(target, "5", "client")
    client.settle("ack", client.take(b"out of commit"))
    client.nothing()
    client.unsubscribe("4")
    client.unsubscribe("5")

    # A topic reaches every subscriber.
    other = Client(port, version)
    for subscriber in (client, other):
        subscriber.subscribe(f"/topic/stomp-py-{version}", "6", "auto")
    other.send(f"/topic/stomp-py-{version}", "to all")
    for subscriber in (client, other):
        subscriber.take(b"to all")
    other.disconnect()

    # A request and its reply, by reply-to alone as RabbitMQ's clients do it, and by a subscription as ActiveMQ's do.
    service = queue_of("service")
    other = Client(port, version)
    other.subscribe(service, "8", "auto")
    for number in range(2):
        if number == 1:
            client.subscribe("/temp-queue/answers", "9", "auto")
        client.send(service, "question", **{"reply-to": "/temp-queue/answers"})
        other.send(other.take(b"question").headers["reply-to"], "answer")
        answer = client.take(b"answer")
        check(answer.headers["subscription"] == ["/temp-queue/answers", "9"][number], "reply", answer.headers)
    client.unsubscribe("9")
    other.disconnect()

    # Several destinations in one SEND, and wildcards.
    left, right = queue_of("left"), queue_of("right")
    client.subscribe(f"/topic/stomp-py.*.{version}.>", "10", "auto")
    client.send(f"{left},/topic/stomp-py.both.{version},{right}", "to both")
    client.take(b"to both")
    client.unsubscribe("10")
    for sub, destination in (("11", left), ("12", right)):
        client.subscribe(destination, sub, "auto")
        client.take(b"to both")
        client.unsubscribe(sub)

    # A message whose time is past is not delivered.
    client.send(queue_of("past"), "past", expires="1000")
    client.send(queue_of("past"), "in time", ttl="600000")
    client.subscribe(queue_of("past"), "13", "auto")
    client.take(b"in time")
    client.unsubscribe("13")

    # Pull: nothing comes but what is asked for.
    jobs = queue_of("jobs")
    client.subscribe(jobs, "16", "client", **{"prefetch-count": "0"})
    for n in range(3):
        client.send(jobs, f"job {n}")
    for n in range(3):
        client.nothing()
        client.send("/control/credit", "", subscription="16", credit="1")
        client.settle("ack", client.take(f"job {n}".encode()))
    client.nothing()
    client.unsubscribe("16")
    # Groups stay with their consumer, in order, and go to another when it leaves; priorities go before.
    grouped = queue_of("grouped")
    other = Client(port, version)
    for consumer in (client, other):
        consumer.subscribe(grouped, "17", "client")
    for n in range(6):
        client.send(grouped, f"m{n}", JMSXGroupID="even" if n % 2 == 0 else "odd")
    odd = []
    for consumer, first_of in ((client, 0), (other, 1)):
        odd = [consumer.take(f"m{n}".encode()) for n in range(first_of, 6, 2)]
        check([f.headers["JMSXGroupID"] for f in odd] == [["even", "odd"][first_of]] * 3, "group")
    other.settle("ack", odd[0])
    other.unsubscribe("17")
    for n in (3, 5):
        frame = client.take(f"m{n}".encode())
        check(frame.headers["JMSXGroupID"] == "odd", "group", frame.headers)
    client.settle("ack", frame)
    client.unsubscribe("17")
    urgent = queue_of("urgent")
    for priority in ("1", "9", "5"):
        client.send(urgent, priority, priority=priority)
    client.subscribe(urgent, "18", "auto")
    for priority in ("9", "5", "1"):
        client.take(priority.encode())
    client.unsubscribe("18")

    # A delivery that is not settled within its time goes to another consumer; who held it has it no more.
    leased = queue_of("leased")
    client.subscribe(leased, "19", "client", **{"ack-timeout": "0.3"})
    client.send(leased, "leased")
    lost = client.take(b"leased")
    other.subscribe(leased, "19", "client")
    frame = other.take(b"leased")
    check(frame.headers["delivery-count"] == "2", "delivery-count", frame.headers)
    client.conn.send("/control/renew", "", receipt="late", **named(version, lost))
    error = client.inbox.errors.get(timeout=PATIENCE)
    check(error.headers.get("code") == "lease-lost", "code of an ERROR", error.headers)
    other.settle("ack", frame)
    other.nothing()
    other.disconnect()
    client = Client(port, version)

    if version != "1.0":
        # One that failed rests as long as its NACK says, and is overtaken.
        resting = queue_of("resting")
        client.send(resting, "rests")
        client.send(resting, "overtakes")
        client.subscribe(resting, "20", "client-individual", **{"prefetch-count": "1"})
        frame = client.take(b"rests")
        began = time.monotonic()
        client.settle("nack", frame, delay="700")
        client.settle("ack", client.take(b"overtakes"))
        frame = client.take(b"rests")
        check(time.monotonic() - began >= 0.7, "not before its time", time.monotonic() - began)
        check(frame.headers["delivery-count"] == "2", "delivery-count", frame.headers)
        client.settle("ack", frame)
        client.unsubscribe("20")

    # A browser sees all that is there, with its sequence, and takes nothing; then it may go on.
    shelf = queue_of("shelf")
    for n in range(3):
        client.send(shelf, f"m{n}")
    client.subscribe(shelf, "21", "client", **{"prefetch-count": "1"})
    held = client.take(b"m0")
    for options, numbers in (({}, range(3)), ({"browser-end": "false", "ack": "client"}, range(1, 3))):
        ack = options.pop("ack", "auto")
        if numbers.start > 0:
            options["from-seq"] = sequences[numbers.start]
        client.subscribe(shelf, "22", ack, browser="true", **{"include-seq": "at"}, **options)
        frames = [client.take(f"m{n}".encode()) for n in numbers]
        check(all(f.headers["subscription"] == "22" for f in frames), "subscription")
        sequences = [int(f.headers["at"]) for f in frames]
        check(sequences == sorted(set(sequences)), "sequences", sequences)
        if ack == "auto":
            end = client.take(b"")
            check(end.headers["browser"] == "end" and "at" not in end.headers, "the end", end.headers)
        else:
            client.send(shelf, "added")
            frames.append(client.take(b"added"))
            client.settle("ack", frames[2])
        client.nothing()
        client.unsubscribe("22")
    for body in (b"m0", b"m1", b"m2", b"added"):
        client.settle("ack", held)
        check(bytes_of(held) == body and held.headers["delivery-count"] == "1", "taken once", held.headers)
        held = client.take() if body != b"added" else None
    client.nothing()
    client.unsubscribe("21")

    # What is sent again with its id is stored once, also after the restart.
    once = queue_of("once")
    for count, header in enumerate(("dedup-id", "_AMQ_DUPL_ID", "Nats-Msg-Id")):
        client.send(once, "once", **{header: "message 1"})
        check(client.inbox.duplicates == count, "duplicates", client.inbox.duplicates)
    tx = client.conn.begin("tx-once")
    client.send(once, "twice", transaction=tx, **{"dedup-id": "message 2"})
    client.send(once, "once", transaction=tx, **{"dedup-id": "message 1"})
    client.end("commit", tx)

    # What durable subscriptions get while nobody is there is there after the restart.
    durable = Client(port, version, client_id=f"stomp-py-{version}")
    durable.subscribe(f"/topic/kept.{version}", "14", "auto", **{"activemq.subscriptionName": "audit"})
    durable.subscribe(f"/topic/kept.{version}", "15", "auto", durable="true", **{"auto-delete": "false"})
    durable.disconnect()
    client.send(f"/topic/kept.{version}", "kept for two")

    # What is left for after the restart: one settled, one held, two waiting.
    kept = queue_of("kept")
    for n in range(4):
        client.send(kept, f"m{n}")
    client.subscribe(kept, "7", "client")
    frames = [client.take(f"m{n}".encode()) for n in range(4)]
    client.settle("ack", frames[0])
    client.disconnect()

    # A request that cannot be is an ERROR with the receipt's name, and the end.
    broken = Client(port, version)
    broken.conn.send("/nonsense/x", "?", receipt="bad")
    error = broken.inbox.errors.get(timeout=PATIENCE)
    check(error.headers.get("receipt-id") == "bad", "receipt-id of an ERROR", error.headers)
    # Over TLS this library takes the end of a connection for nothing to read, and does not tell.
    check("TEST_CA" in os.environ or broken.inbox.gone.wait(PATIENCE), "an ERROR ends the connection")

    if version != "1.0":
        beating = Client(port, version, heartbeats=(300, 300))
        deadline = time.monotonic() + PATIENCE
        while beating.inbox.beats < 4:
            check(time.monotonic() < deadline, "heart-beats come")
            check(not beating.inbox.gone.is_set(), "heart-beats keep the connection")
            beating.inbox.gone.wait(0.05)
        beating.send(queue_of("beats"), "still here")
        beating.disconnect()


def again(port, version):
    client = Client(port, version)
    kept = f"/queue/stomp-py-{version}-kept"
    client.subscribe(kept, "1", "client")
    frames = [client.take(f"m{n}".encode()) for n in (1, 2, 3)]
    check(frames[0].headers["redelivered"] == "true", "redelivered", frames[0].headers)
    client.settle("ack", frames[2])
    client.nothing()

    once = f"/queue/stomp-py-{version}-once"
    for number, body in enumerate(("once", "twice")):
        client.send(once, body, **{"dedup-id": f"message {number + 1}"})
    check(client.inbox.duplicates == 2, "duplicates after a restart", client.inbox.duplicates)
    client.subscribe(once, "2", "auto")
    client.take(b"once")
    client.take(b"twice")
    client.nothing()

    durable = Client(port, version, client_id=f"stomp-py-{version}")
    by_name = {"activemq.subscriptionName": "audit"}
    by_id = {"durable": "true", "auto-delete": "false"}
    for sub, headers in (("14", by_name), ("15", by_id)):
        durable.subscribe(f"/topic/kept.{version}", sub, "auto", **headers)
        frame = durable.take(b"kept for two")
        check(frame.headers["subscription"] == sub, "subscription", frame.headers)
        durable.unsubscribe(sub, **headers)
    client.send(f"/topic/kept.{version}", "kept for nobody")
    durable.disconnect()
    client.disconnect()


def rabbitmq(port, version):
    """What RabbitMQ's users write: no bound by a prefetch of 0, queues by their other name, replies unasked."""
    client = Client(port, version)
    own = f"/amq/queue/rabbit-{version}"
    for n in range(20):
        client.send(own, f"m{n}", durable="true")
    client.subscribe(own, "1", "client", **{"prefetch-count": "0"})
    frames = [client.take(f"m{n}".encode()) for n in range(20)]
    client.settle("ack", frames[19])
    client.subscribe(f"/exchange/amq.topic/{version}.*", "2", "auto")
    client.send(f"/topic/{version}.x", "by key")
    check(client.take(b"by key").headers["subscription"] == "2", "subscription")
    client.send(own, "question", **{"reply-to": "/temp-queue/r"})
    question = client.take(b"question")
    client.settle("ack", question)
    client.send(question.headers["reply-to"], "answer")
    check(client.take(b"answer").headers["subscription"] == "/temp-queue/r", "subscription")
    client.conn.send("bare", "?", receipt="bad")
    error = client.inbox.errors.get(timeout=PATIENCE)
    check(error.headers.get("code") == "bad-destination", "code of an ERROR", error.headers)


if __name__ == "__main__":
    {"first": first, "again": again, "rabbitmq": rabbitmq}[sys.argv[3]](int(sys.argv[1]), sys.argv[2])
    print("done")
