"""Certificates for tests, made by openssl: an authority, and what it signs."""

import shutil
import subprocess

import pytest


class Authority:
    """An authority in a directory. Each name gets NAME.crt and NAME.key there."""

    def __init__(self, directory):
        if not shutil.which("openssl"):
            pytest.skip("openssl is not installed: it makes the certificates")
        self.directory = directory
        directory.mkdir()
        self.certificate = directory / "ca.crt"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", f"/CN=authority {directory.name}", "-keyout", directory / "ca.key", "-out", self.certificate,
        )

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def sign(self, name, host="localhost", days=30):
        """The paths of a certificate for the host and of its key."""
        certificate, key, wish = (self.directory / f"{name}{end}" for end in (".crt", ".key", ".csr"))
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={host}",
            "-keyout", key, "-out", wish,
        )
        self._openssl(
            "x509", "-req", "-in", wish, "-CA", self.certificate, "-CAkey", self.directory / "ca.key",
            "-CAcreateserial", "-days", days, "-out", certificate,
        )
        key.chmod(0o600)
        return certificate, key
