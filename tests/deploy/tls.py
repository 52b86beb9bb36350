"""Certificates for a run: an authority, and what it has signed for localhost."""


def write(desk):
    """Writes ca.pem, tls.crt and tls.key to the desk."""
    folder = desk.folder
    subject = ("-days", "1", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    authority = ("-subj", "/CN=an authority for a test", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    desk.run("openssl", "req", "-x509", *subject, *authority)
    signed = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-addext", "subjectAltName=DNS:localhost")
    own = ("-addext", "basicConstraints=critical,CA:FALSE", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    desk.run("openssl", "req", "-x509", *subject, "-subj", "/CN=localhost", *signed, *own)
