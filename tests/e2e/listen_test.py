"""The listeners of a real server: TLS and mTLS on both ports and their reload, the admin port, descriptors used up."""
import http.client
import json
import os
import pathlib
import socket
import ssl
import subprocess
import tempfile
import unittest

import grpc

import grpc_client
from server_process import BINARY, PROMPT, ROOT, ServerProcess, wait_until


def make_certificate(folder, name):
    """Self-signed, for 127.0.0.1: (certificate, key)."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-keyout", key, "-out", cert, "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return cert, key


def address(text):
    host, port = text.rsplit(":", 1)
    return host, int(port)


class TlsTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.cert, self.key = make_certificate(self.folder, "first")

    def start(self, *flags):
        server = ServerProcess(f"--tls_cert={self.cert}", f"--tls_key={self.key}", *flags)
        self.addCleanup(server.stop)
        return server

    def https(self, server, ca, client=None):
        context = ssl.create_default_context(cafile=str(ca))
        if client:
            context.load_cert_chain(*client)
        connection = http.client.HTTPSConnection(*address(server.http_address), context=context, timeout=120)
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection):
        connection.request("POST", "/v1/completions", json.dumps({"prompt": PROMPT, "max_tokens": 2}),
                           {"Content-Type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        return reply.status

    def channel(self, server, ca, client=None):
        key, cert = (client[1].read_bytes(), client[0].read_bytes()) if client else (None, None)
        channel = grpc.secure_channel(server.grpc_address,
                                      grpc.ssl_channel_credentials(ca.read_bytes(), key, cert),
                                      options=[("grpc.use_local_subchannel_pool", 1)])
        self.addCleanup(channel.close)
        return channel

    def common_name(self, address_text):
        """Of the certificate that the server shows."""
        pem = ssl.get_server_certificate(address(address_text))
        text = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=pem, text=True, capture_output=True, check=True)
        return text.stdout.strip().split("= ")[-1]

    def test_old_versions_and_other_protocols_are_refused(self):
        server = self.start()
        for where in (server.http_address, server.grpc_address):
            for version, taken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True),
                                   (ssl.TLSVersion.TLSv1_3, True)):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.set_ciphers("ALL:@SECLEVEL=0")  # else the client itself would refuse
                context.minimum_version = context.maximum_version = version
                with self.subTest(where=where, version=version), socket.create_connection(address(where)) as plain:
                    if taken:
                        context.wrap_socket(plain).close()
                    else:
                        with self.assertRaises(ssl.SSLError):
                            context.wrap_socket(plain)
        for where, offered, chosen in ((server.http_address, ["h2", "http/1.1"], "http/1.1"),
                                       (server.grpc_address, ["http/1.1", "h2"], "h2"),
                                       (server.grpc_address, ["http/1.1"], None)):
            context = ssl.create_default_context(cafile=str(self.cert))
            context.set_alpn_protocols(offered)
            with self.subTest(where=where, offered=offered), socket.create_connection(address(where)) as plain:
                if chosen:
                    with context.wrap_socket(plain, server_hostname="127.0.0.1") as tls:
                        self.assertEqual(tls.selected_alpn_protocol(), chosen)
                else:
                    with self.assertRaises(ssl.SSLError):
                        context.wrap_socket(plain, server_hostname="127.0.0.1")

    def test_clients_need_a_certificate_where_a_ca_is_named(self):
        mine, other = make_certificate(self.folder, "mine"), make_certificate(self.folder, "other")
        server = self.start(f"--tls_client_ca={mine[0]}")
        self.assertEqual(self.ask(self.https(server, self.cert, mine)), 200)
        self.assertEqual(grpc_client.health(self.channel(server, self.cert, mine)), grpc_client.SERVING)
        for client in (None, other):
            with self.subTest(client), self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                self.ask(self.https(server, self.cert, client))
            with self.subTest(client), self.assertRaises(grpc.RpcError):
                grpc_client.health(self.channel(server, self.cert, client))
        # Probes do not need one: the admin port is plain.
        connection = http.client.HTTPConnection(*address(server.admin_address), timeout=120)
        self.addCleanup(connection.close)
        connection.request("GET", "/readyz")
        self.assertEqual(connection.getresponse().status, 200)

    def test_new_files_are_taken_up_and_no_connection_is_cut(self):
        server = self.start()
        https, channel = self.https(server, self.cert), self.channel(server, self.cert)
        self.assertEqual(self.ask(https), 200)
        sock = https.sock
        self.assertEqual(grpc_client.health(channel), grpc_client.SERVING)
        old = self.cert.read_bytes()
        # A certificate without its key: the old one stays.
        second = make_certificate(self.folder, "second")
        os.replace(second[0], self.cert)
        wait_until(lambda: "TLS files stay as they were" in server.stderr())
        self.assertEqual(self.common_name(server.http_address), "first")
        os.replace(second[1], self.key)
        for where in (server.http_address, server.grpc_address):
            wait_until(lambda: self.common_name(where) == "second")
        self.assertEqual(self.ask(https), 200)
        self.assertIs(https.sock, sock, "the connection was cut")
        self.assertEqual(grpc_client.health(channel), grpc_client.SERVING)
        self.assertEqual(self.ask(self.https(server, self.cert)), 200)
        self.assertNotEqual(self.cert.read_bytes(), old)

    def test_bad_flags(self):
        for flags, expected in (([f"--tls_client_ca={self.cert}"], "--tls_cert"),
                                ([f"--tls_cert={self.cert}", f"--tls_key={self.key}", f"--tls_client_ca={self.key}"], "client CA"),
                                (["--admin_port=x"], "--admin_port"), (["--admin_port=65536"], "--admin_port"),
                                (["--max_grpc_connections=0"], "--max_grpc_connections")):
            with self.subTest(flags):
                done = subprocess.run([BINARY, f"--model={ROOT / 'models' / 'demo'}", "--http_port=0", "--grpc_port=0", *flags],
                                      capture_output=True, text=True, timeout=120)
                self.assertEqual(done.returncode, 1)
                self.assertIn(expected, done.stderr.splitlines()[-1])


class DescriptorsTest(unittest.TestCase):
    def test_idle_connections_leave_room_for_the_rest(self):
        """As many clients as one may be, idle on the HTTP port: gRPC, probes and requests go on."""
        server = ServerProcess("--max_http_connections=100", "--max_grpc_connections=20", descriptors=256)
        self.addCleanup(server.stop)
        idle = [socket.create_connection(address(server.http_address)) for _ in range(300)]
        self.addCleanup(lambda: [s.close() for s in idle])
        channel, _ = grpc_client.connect(server)
        self.addCleanup(channel.close)
        self.assertEqual(grpc_client.health(channel), grpc_client.SERVING)
        # In the burst itself a newcomer may be told 503: those that came first are not idle yet, or still closing.
        def answers(*request):
            try:
                return server.request(*request)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_until(lambda: answers("GET", "/v1/models"))
        self.assertEqual(server.request("GET", "/livez")[0], 200)
        wait_until(lambda: answers("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1}))
        metrics = server.metrics()
        self.assertLessEqual(metrics['sessa_connections{listener="http"}'], 164)
        self.assertGreater(metrics['sessa_connections_cut_total{listener="http",reason="evicted"}'], 0)
        self.assertGreater(metrics['sessa_connections_cut_total{listener="http",reason="evicted"}'] +
                           metrics['sessa_connections_refused_total{listener="http",reason="limit"}'], 100)
        self.assertEqual(metrics['sessa_connections_refused_total{listener="http",reason="descriptors"}'], 0)


if __name__ == "__main__":
    unittest.main()
