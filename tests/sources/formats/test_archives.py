"""Tar and zip archives: crystals in order, and names that must not become paths."""

from __future__ import annotations

import io
import tarfile
import zipfile

import pytest

from crystallm.errors import InputError
from crystallm.sources.collection import read
from crystallm.sources.entry import Entry

FILES = {"b.cif": "data_b\n", "x/a.cif": "data_a\n", "notes.txt": "no crystal", "../up.cif": "data_up\n"}


def pack(path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in FILES.items():
                archive.writestr(name, text)
        return
    with tarfile.open(path, "w:gz") as archive:
        for name, text in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize("name", ["c.zip", "c.tar.gz"])
def test_crystals_come_in_the_order_of_the_archive(tmp_path, name):
    pack(tmp_path / name)
    first, second, outside = read(tmp_path / name)
    assert (first, second) == (Entry("b", "data_b\n"), Entry("x/a", "data_a\n"))
    assert outside.text is None
    assert outside.problem
    assert not (tmp_path.parent / "up.cif").exists()


@pytest.mark.parametrize("name", ["c.zip", "c.tar.gz"])
def test_a_file_that_is_not_an_archive_is_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="cannot be read") as error:
        list(read(tmp_path / name))
    assert "\n" not in str(error.value)
