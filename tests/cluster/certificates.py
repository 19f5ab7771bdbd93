"""Keys and certificates of one cluster, made by openssl at each start and kept nowhere else.

One authority signs everything but the aggregation layer's client, which by Kubernetes' rules needs its own.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.shell import run

if TYPE_CHECKING:
    from pathlib import Path

    from cluster.layout import Paths, Subnets

_DAYS = "3650"
_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class Certificate:
    """What to sign: file name, subject, the names a server is reached by."""

    name: str
    subject: str
    alternative_names: tuple[str, ...] = ()
    authority: str = "ca"


def make_certificates(paths: Paths, subnets: Subnets) -> None:
    directory = paths.certificates
    directory.mkdir(mode=0o700, parents=True)
    (directory / "openssl.cnf").write_text(_CONFIG)
    for authority in ("ca", "front-proxy-ca"):
        _make_authority(directory, authority)
    for certificate in _certificates(paths, subnets):
        _sign(directory, certificate)
    key = directory / "service-account.key"
    run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key])
    run(["openssl", "pkey", "-in", key, "-pubout", "-out", directory / "service-account.pub"])


def write_kubeconfig(paths: Paths, subnets: Subnets, *, user: str, file: Path) -> None:
    """A kubeconfig with everything inside it, so it can be copied; JSON is YAML."""

    def encoded(name: str) -> str:
        return base64.b64encode((paths.certificates / name).read_bytes()).decode()

    context = paths.context
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {
                    "server": f"https://{subnets.node_ip}:6443",
                    "certificate-authority-data": encoded("ca.crt"),
                },
            }
        ],
        "users": [
            {
                "name": user,
                "user": {
                    "client-certificate-data": encoded(f"{user}.crt"),
                    "client-key-data": encoded(f"{user}.key"),
                },
            }
        ],
        "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(json.dumps(config, indent=1))


def _certificates(paths: Paths, subnets: Subnets) -> tuple[Certificate, ...]:
    service = "kubernetes.default.svc"
    api_names = (
        *(
            f"DNS:{name}"
            for name in ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.cluster.local")
        ),
        *(f"IP:{address}" for address in ("127.0.0.1", subnets.node_ip, subnets.api_service_ip)),
    )
    node_names = (f"DNS:{paths.node_name}", f"IP:{subnets.node_ip}")
    return (
        Certificate("kube-apiserver", "/CN=kube-apiserver", api_names),
        Certificate("kubelet", f"/O=system:nodes/CN=system:node:{paths.node_name}", node_names),
        Certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        Certificate("kube-controller-manager", "/CN=system:kube-controller-manager"),
        Certificate("kube-scheduler", "/CN=system:kube-scheduler"),
        Certificate("kube-proxy", "/CN=system:kube-proxy"),
        Certificate("admin", "/O=system:masters/CN=anneal-admin"),
        Certificate("front-proxy-client", "/CN=front-proxy-client", authority="front-proxy-ca"),
    )


def _request(directory: Path, name: str, subject: str) -> list[str | Path]:
    return [
        *("openssl", "req", "-x509", "-config", directory / "openssl.cnf", "-days", _DAYS, "-subj", subject),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"),
    ]


def _make_authority(directory: Path, name: str) -> None:
    usage = (
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,digitalSignature",
    )
    run([*_request(directory, name, f"/CN=anneal-{name}"), *usage])


def _sign(directory: Path, certificate: Certificate) -> None:
    signer = certificate.authority
    names = ",".join(certificate.alternative_names)
    run(
        [
            *_request(directory, certificate.name, certificate.subject),
            *("-CA", directory / f"{signer}.crt", "-CAkey", directory / f"{signer}.key"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
            *(("-addext", f"subjectAltName={names}") if names else ()),
        ]
    )
