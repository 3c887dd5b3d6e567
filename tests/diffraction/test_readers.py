"""Files of patterns."""

from __future__ import annotations

import numpy as np
import pytest

import powder_patterns
from crystallm.diffraction.readers import read_pattern
from crystallm.errors import InputError


@pytest.fixture(scope="module")
def pattern():
    return powder_patterns.measured(powder_patterns.rutile())


def write(path, lines, encoding="utf-8"):
    path.write_text("\n".join(lines), encoding=encoding)
    return path


def same(found, pattern):
    assert found.two_theta == pytest.approx(pattern.two_theta, abs=1e-3)
    assert found.intensity == pytest.approx(pattern.intensity)


@pytest.mark.parametrize(
    ("name", "head", "separator"),
    [
        ("a.xy", ["# a comment", "! another, 3 words"], " "),
        ("a.csv", ["two_theta,intensity"], ","),
        ("a.csv", ["2θ (°);Counts"], ";"),
        ("a.dat", [], "\t"),
        ("a.txt", ["[Data]", "Angle, PSD"], ", "),
    ],
)
def test_tables_of_two_columns(tmp_path, pattern, name, head, separator):
    rows = [f"{x:.4f}{separator}{y:g}" for x, y in zip(pattern.two_theta, pattern.intensity, strict=True)]
    same(read_pattern(write(tmp_path / name, head + rows)), pattern)


@pytest.mark.parametrize("separator", [";", "\t", "; ", "  "])
def test_decimal_commas(tmp_path, pattern, separator):
    rows = [f"{x:.4f}{separator}{y:g}" for x, y in zip(pattern.two_theta, pattern.intensity, strict=True)]
    same(read_pattern(write(tmp_path / "a.csv", [row.replace(".", ",") for row in rows])), pattern)


def test_columns_are_found_by_their_heads(tmp_path, pattern):
    rows = [
        f"{i},{y:g},{x:.4f},2"
        for i, (x, y) in enumerate(zip(pattern.two_theta, pattern.intensity, strict=True))
    ]
    found = read_pattern(write(tmp_path / "a.csv", ["number,intensity,2theta,sigma", *rows]))
    same(found, pattern)
    assert found.sigma == pytest.approx(2.0)


def test_a_third_column_of_xye_has_deviations(tmp_path, pattern):
    rows = [f"{x:.4f} {y:g} 3.5" for x, y in zip(pattern.two_theta, pattern.intensity, strict=True)]
    assert read_pattern(write(tmp_path / "a.xye", rows)).sigma == pytest.approx(3.5)
    assert read_pattern(write(tmp_path / "a.xy", rows)).sigma is None


@pytest.mark.parametrize("kind", ["Q", "d"])
def test_q_and_d_are_converted(tmp_path, pattern, kind):
    q = 4 * np.pi / 1.5406 * np.sin(np.radians(pattern.two_theta / 2))
    values = q if kind == "Q" else 2 * np.pi / q
    rows = [f"{x:.8f} {y:g}" for x, y in zip(values, pattern.intensity, strict=True)]
    path = write(tmp_path / "a.xy", [f"{kind} intensity", *rows])
    same(read_pattern(path, 1.5406), pattern)
    with pytest.raises(InputError, match="--wavelength"):
        read_pattern(path)


XRDML = """<?xml version="1.0" encoding="UTF-8"?>
<xrdMeasurements xmlns="http://www.xrdml.com/XRDMeasurement/1.3"><xrdMeasurement>
<usedWavelength intended="K-Alpha"><kAlpha1 unit="Angstrom">1.5405980</kAlpha1></usedWavelength>
<scan><dataPoints><positions axis="2Theta" unit="deg"><startPosition>{}</startPosition>
<endPosition>{}</endPosition></positions><positions axis="Omega"><startPosition>1</startPosition>
<endPosition>2</endPosition></positions><intensities unit="counts">{}</intensities></dataPoints></scan>
</xrdMeasurement></xrdMeasurements>"""


def test_xrdml(tmp_path, pattern):
    counts = " ".join(f"{y:g}" for y in pattern.intensity)
    path = write(tmp_path / "a.xrdml", [XRDML.format(pattern.two_theta[0], pattern.two_theta[-1], counts)])
    found = read_pattern(path)
    same(found, pattern)
    assert found.wavelength == pytest.approx(1.540598)


@pytest.mark.parametrize("ranged", [True, False])
def test_pdcif(tmp_path, pattern, ranged):
    lines = [
        "data_a",
        "_cell_length_a 4.59",
        "data_b",
        "loop_",
        "_diffrn_radiation_wavelength",
        "1.5406(1)",
        "1.5444",
    ]
    if ranged:
        lines += [
            f"_pd_meas_2theta_range_min {pattern.two_theta[0]}",
            f"_pd_meas_2theta_range_max {pattern.two_theta[-1]}",
        ]
    lines += ["loop_", *([] if ranged else ["_pd_meas_2theta_scan"]), "_pd_meas_counts_total"]
    lines += [
        f"{y:g}({np.sqrt(y):.0f})" if ranged else f"{x:.4f} {y:g}"
        for x, y in zip(pattern.two_theta, pattern.intensity, strict=True)
    ]
    found = read_pattern(write(tmp_path / "a.cif", lines))
    same(found, pattern)
    assert found.wavelength == pytest.approx(1.5406)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xy", "no numbers here", "no pattern in it"),
        ("a.cif", "data_a\n_cell_length_a 4.59", "no pattern in it"),
        ("a.cif", "loop_\n_a\n", "not a CIF"),
        ("a.xrdml", "<scan>", "not XML"),
        ("a.xrdml", "<a/>", "no scan over 2Theta"),
        ("a.xrdml", '<!DOCTYPE a [<!ENTITY b "c">]><a/>', "entities"),
        ("a.raw", "RAW1.01\0\0", "binary"),
    ],
)
def test_files_without_a_pattern_are_rejected(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        read_pattern(write(tmp_path / name, [text]))


def test_negative_counts_of_a_file_are_quoted_with_their_angle(tmp_path):
    lines = [f"{10 + i / 10:.1f} {-400 if i == 70 else 100 + i % 7}" for i in range(300)]
    with pytest.raises(InputError, match=r"a\.xy: intensity = -400 at 2 theta = 17: counts are not negative"):
        read_pattern(write(tmp_path / "a.xy", lines))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no pattern .*missing\.xy"):
        read_pattern(tmp_path / "missing.xy")
