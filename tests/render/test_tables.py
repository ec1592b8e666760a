"""Charts as CSV: read again by a reader of CSV they are the same, whatever their titles."""

import csv
import io

import numpy as np
import pytest

from studio.render.tables import csv_text
from studio.scenes import Curves, Images, Members, Series


def curves(title, name="mean"):
    return Curves(title, "step", "loss", (Series(name, np.array([0.0, 1.0]), np.array([0.5, 1 / 3])),))


def rows(*scenes):
    return list(csv.reader(io.StringIO(csv_text(scenes), newline="")))


def test_curves_and_members_become_lines_and_pictures_do_not():
    members = Members("Trade", "loss", "distance", np.array([1e-32]), np.array([2.0]), ("a",))
    assert rows(Images(np.zeros((1, 2, 2, 3), np.uint8)), curves("Loss"), members) == [
        ["curve", "series", "x", "y"],
        ["Loss", "mean", "0", "0.5"],
        ["Loss", "mean", "1", "0.3333333333"],
        ["Trade", "member 1", "1e-32", "2"],
    ]


@pytest.mark.parametrize("title", ["a, b", 'say "loss"', "two\nlines", "a;b", "größer", ""])
def test_titles_come_back_as_they_were(title):
    assert rows(curves(title, name=title))[1][:2] == [title, title]


@pytest.mark.parametrize("title", ["=1+1", "+x", "-x", "@x", "\tx", " =1+1", '=HYPERLINK("x")'])
def test_no_title_is_a_formula(title):
    assert rows(curves(title, name=title))[1][:2] == [f"'{title}"] * 2


def test_no_title_breaks_a_line():
    assert rows(curves("a\r=b", name="\r=x"))[1][:2] == ["a =b", "' =x"]


def test_numbers_may_be_negative_or_none_at_all():
    odd = Curves("t", "x", "y", (Series("s", np.array([-1.0, np.inf]), np.array([np.nan, -2.5])),))
    assert [row[2:] for row in rows(odd)[1:]] == [["-1", "nan"], ["inf", "-2.5"]]
