"""The numbers in a sequence are read, shifted and compared."""

from __future__ import annotations

from crystallm.orbits import language, parameters

LANGUAGE = language.OrbitsLanguage()

RUTILE = "<crystal> Ti 2 O 4 (P4_2/mnm) Ti 2a O 4f V-5 .7 c-9 .3 0.30 2' <end>"


def test_numbers_are_changed_where_they_stand():
    ids = LANGUAGE.ids(RUTILE)
    places = parameters.positions(ids)
    assert [LANGUAGE.text(ids[place : place + 2]) for place in places] == ["V-5 .7", "c-9 .3", "0.30 2'"]

    def told(place, length):
        found = parameters.changed(ids, place, length)
        return None if found is None else LANGUAGE.text(found[place : place + 2])

    assert told(places[0], 4.0) == "V-4 .1"  # -43 + 4 = -39; told as tens rounded down
    assert told(places[0], 0.1) == "V-5 .8"  # one step at least
    assert told(places[0], -0.1) == "V-5 .6"
    assert told(places[1], -4.0) == "c-10 .9"
    assert told(places[2], -1.0) == "0.29 8'"  # four thousandths
    assert told(places[2], 175.0) == "0.00 2'"  # coordinates go round
    assert told(places[0], 1e6) is None
    assert told(places[1], -750.0) is None  # not into the family before it


def test_numbers_move_together_and_the_short_way_round():
    ids = LANGUAGE.ids(RUTILE)
    other = parameters.shifted(ids, [4, -4, 700])
    assert LANGUAGE.text(other) == RUTILE.replace("V-5 .7", "V-4 .1").replace("c-9 .3", "c-10 .9").replace(
        "0.30 2'", "0.00 2'"
    )
    assert parameters.differences(ids, other) == [4, -4, -300]
    assert parameters.shifted(ids, parameters.differences(ids, other)) == other
    assert parameters.shifted(ids, [10**6, 0, 0]) is None
    assert parameters.step_sizes(ids) == [1.0, 1.0, parameters.COORDINATE]
