"""A name server that knows what a test tells it."""

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset


class NameServer:
    """Answers over UDP: `records` is `{(domain, kind): [value, …]}`; a domain that has no record does not exist.

    `fails` holds domains for which the server says that it is broken.
    """

    def __init__(self, records):
        self.records = records
        self.fails = set()

    def __enter__(self):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        # An empty datagram wakes the thread: closing the socket alone would not.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(timeout=30)
        self._socket.close()

    def resolver(self):
        made = dns.resolver.Resolver(configure=False)
        made.nameservers = ["127.0.0.1"]
        made.port = self._socket.getsockname()[1]
        return made

    def _serve(self):
        while True:
            asked, sender = self._socket.recvfrom(4096)
            if not asked:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(asked)).to_wire(), sender)

    def _answer(self, asked):
        answer = dns.message.make_response(asked)
        answer.flags |= dns.flags.RA
        (question,) = asked.question
        domain, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        found = self.records.get((domain, kind), [])
        if domain in self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        elif not any(known == domain for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer
