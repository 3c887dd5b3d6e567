"""The cell for notebooks: all atoms, escaped text, only the cell if there are many atoms."""

from __future__ import annotations

from pymatgen.core import Lattice, Structure

from crystallm.visualization import notebook_view


def test_atoms_on_faces_are_drawn_on_opposite_faces_too(textbook_structures):
    html = notebook_view.to_html(textbook_structures["rutile"], title="<TiO2>", name="cell")
    assert "&lt;TiO2&gt;" in html
    drawing = html.split("<script>")[0]
    assert drawing.count("<circle") == 15  # 9 Ti at corners and centre, 4 O on faces, 2 O inside
    assert drawing.count("<line") == 12
    assert notebook_view.to_html(textbook_structures["rutile"], title="<TiO2>", name="cell") == html


def test_many_atoms_leave_only_the_cell():
    large = Structure(Lattice.cubic(5), ["Cu"], [[0, 0, 0]]) * (9, 9, 9)
    drawing = notebook_view.to_html(large, name="cell").split("<script>")[0]
    assert drawing.count("<circle") == 0
    assert drawing.count("<line") == 12
