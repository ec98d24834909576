"""Packaging: dependencies with honest ranges (constraints.txt pins what was tested) and the commands."""

from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = ("plan", "train", "predict", "evaluate", "compare", "run", "tune", "export", "demo")
CLEARML = ("clearml>=2.0",)
SLURM = ("submitit>=1.5.2",)
EXPORT = ("onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.3")
TUNE = ("optuna>=5.0", "cmaes>=0.12")
VERSION = next(
    line.split('"')[1]
    for line in Path(__file__).with_name("autoseg").joinpath("__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

setup(
    name="autoseg",
    version=VERSION,
    description="Which segmentation network is best on my 3-D medical images, at what cost, and how sure can I be?",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["autoseg", "autoseg.*"]),
    package_data={
        "autoseg": ["py.typed"],
        "autoseg.compare": ["page/*.j2", "page/*.css", "page/*.js"],
        "autoseg.tune": ["page/*.j2"],
        "autoseg.launch": ["experiments/*.json"],
    },
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "SimpleITK>=2.3",
        "nibabel>=5.1",
        "monai>=1.5",
        "einops>=0.7",
        "blosc2>=3.0",
        "pydantic>=2.7",
        "typer>=0.16",
        "rich>=13",
        "tensorboard>=2.15",
        "jinja2>=3.1",
        "plotly>=5.20",
        "pillow>=10.1",
    ],
    extras_require={
        "clearml": [*CLEARML],
        "energy": ["nvidia-ml-py>=12.535"],
        "dev": ["mypy>=1.15", "ruff>=0.9"],
        "docs": ["mkdocs-material>=9.5"],
        "export": [*EXPORT],
        "slurm": [*SLURM],
        "tune": [*TUNE],
        "test": [
            *CLEARML,
            *EXPORT,
            *SLURM,
            *TUNE,
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "scikit-learn>=1.3",
            "scikit-image>=0.22",
            "batchgeneratorsv2==0.3.6",
            "surface-distance>=0.1",
            "statsmodels>=0.14",
            "scikit-posthocs>=0.9",
            "setuptools>=70.1",
        ],
    },
    entry_points={"console_scripts": [f"autoseg_{name} = autoseg.cli.{name}:main" for name in COMMANDS]},
)
