"""The package `mfn`; what it depends on, and why in these versions."""

from setuptools import find_packages, setup

RUN = [
    # Petastorm 0.13's thread pool loses rows; every release breaks on pyarrow 15 and numpy 2.
    "petastorm==0.12.1",
    "pyarrow==14.0.2",
    "numpy==1.26.4",
    "pandas>=2.2,<3",
    # petastorm imports pkg_resources, which later releases of setuptools do not have.
    "setuptools<81",
    # Spark 4.0 is the newest whose floor on pyarrow fits; Delta 4.0 is the one made for it.
    "pyspark==4.0.5",
    "delta-spark==4.0.1",
    "torch==2.13.0",
    "safetensors",
    "scikit-learn",
    "scipy",
    "pydantic>=2.11,<3",
    "pyyaml",
    "fsspec",
    "tenacity",
    "python-json-logger",
    "tqdm",
    "rich",
    "altair>=5,<6",
    "vl-convert-python",
    "jinja2",
    # Event files of a training, where train.tensorboard asks for them; torch has the writer.
    "tensorboard",
]

DEVELOP = [
    "pytest",
    "pytest-xdist",  # half of a test that uses Spark is waiting for the driver: two go side by side
    "hypothesis",
    "chispa",
    "ruff",
    "import-linter",
    "mypy",
    "pandas-stubs>=2.3,<3",
    "types-PyYAML",
    "types-tqdm",
    "pre-commit",
    "uv",
    # bench/ holds our jobs against it, so another release is another yardstick.
    "duckdb==2.0.0",
    # bench/ tells the memory of whole trees of processes.
    "psutil",
    # An S3 server on this machine, and the client with which roots in an object store are tested.
    "moto[s3]>=5,<6",
    "flask",  # with flask-cors, all that the server of moto[server] needs for S3
    "flask-cors",
    "s3fs",
    # The documentation's site; material 9 is made for mkdocs 1.
    "mkdocs==1.6.1",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings-python>=2,<3",
]

setup(
    name="mfn",
    version="0.1.0",
    description="Daily-retrained, multi-interest ranking models: a Spark pipeline around MFN",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["mfn", "mfn.*", "pipelines"]),
    entry_points={"console_scripts": ["mfn = pipelines.cli:main"]},
    package_data={"mfn.reporting": ["*.html"]},
    install_requires=RUN,
    extras_require={
        # Only training on more than one worker needs it; `make` builds its wheel once.
        "horovod": ["horovod==0.28.1", "psutil", "cloudpickle"],
        "dev": DEVELOP,
    },
)
