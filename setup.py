"""Packaging: dependencies with honest ranges (constraints.txt pins what was tested) and the commands."""

from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = ("plan", "train", "predict", "evaluate", "compare", "demo")
VERSION = next(
    line.split('"')[1]
    for line in Path(__file__).with_name("autoseg").joinpath("__init__.py").read_text().splitlines()
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
    package_data={"autoseg": ["py.typed"], "autoseg.compare": ["*.j2", "*.css", "*.js"]},
    install_requires=[
        "torch>=2.6",
        "numpy>=1.26",
        "scipy>=1.11",
        "SimpleITK>=2.3",
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
        "test": ["pytest>=8", "scikit-image>=0.22", "batchgeneratorsv2==0.3.6", "surface-distance>=0.1"],
    },
    entry_points={"console_scripts": [f"autoseg_{name} = autoseg.cli.{name}:main" for name in COMMANDS]},
)
