"""Conformers as files, as JSON, as HTML and as a picture: nothing is lost, and no word leaves its place."""

import html
import json
from dataclasses import replace

import numpy as np
import pytest
from surfaces.odd_prompts import ODD_PROMPTS
from surfaces.turning import conformers

from studio.render.molecules import molecules_html, view_json, viewer_script
from studio.render.molecules_picture import energy_colours, orientation, picture
from studio.render.molecules_text import clean, kekulised, sdf_text, xyz_text
from studio.render.raster import still
from studio.render.tables import csv_text
from studio.scenes import Molecules

SMILES = [
    "CC(=O)Oc1ccccc1C(=O)O", "c1ccc2[nH]ccc2c1", "C[n+]1ccccc1", "[O-][N+](=O)c1ccccc1", "c1ccc2cccc2cc1",
    "O=c1cc[nH]cc1", "C[N+](C)(C)CC([O-])=O", "c1cscn1", "C[o+]1cccc1", "[O-][n+]1ccccc1", "N#CC=C", "FC(Cl)(Br)I",
    "CS(=O)(=O)Nc1ccncc1", "c1ccc2c(c1)[nH]c1ccccc12", "[Na+].[O-]C=O", "c1ccc2ncncc2c1", "[B-](F)(F)(F)F",
    "OP(O)(O)=O", "c1ccc2c(c1)ccc1ccccc12", "c1cc[cH-]c1",
]  # fmt: skip
HOSTILE = (*ODD_PROMPTS[:60], "$$$$", "$$$$$$$$\n$$$$", "a\n$$$$\nM  END\n> <X>\n1\n", "> <ENERGY>")


def embedded(smiles, n=3, title="A molecule"):
    """Return conformers of a molecule, not relaxed, straight from RDKit."""
    pytest.importorskip("rdkit")
    from rdkit import Chem
    from rdkit.Chem import AllChem

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(molecule, n, randomSeed=7)
    atoms, bonds = molecule.GetAtoms(), molecule.GetBonds()
    return molecule, Molecules(
        title, smiles, tuple(atom.GetSymbol() for atom in atoms), np.array([atom.GetFormalCharge() for atom in atoms]),
        np.array([[bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()] for bond in bonds], dtype=int).reshape(-1, 2),
        np.array([bond.GetBondTypeAsDouble() for bond in bonds]),
        np.stack([conformer.GetPositions() for conformer in molecule.GetConformers()]),
        np.linspace(2.0, 0.0, n), np.arange(n), tuple(f"number {place}" for place in range(n)),
        np.zeros((0, n, molecule.GetNumAtoms(), 3)), "MMFF94", -1.5,
    )  # fmt: skip


def read(text):
    from rdkit import Chem

    reader = Chem.SDMolSupplier()
    reader.SetData(text, removeHs=False)
    return list(reader)


@pytest.mark.parametrize("smiles", SMILES)
def test_an_sdf_is_read_back_with_the_same_graph_places_and_charges(smiles):
    molecule, scene = embedded(smiles)
    from rdkit import Chem

    text = sdf_text(scene)
    records = read(text)
    assert len(records) == 3 and None not in records
    for place, (record, places) in enumerate(zip(records, scene.positions, strict=True)):
        assert np.abs(record.GetConformer().GetPositions() - places).max() <= 1e-4
        assert [atom.GetSymbol() for atom in record.GetAtoms()] == list(scene.symbols)
        assert [atom.GetFormalCharge() for atom in record.GetAtoms()] == scene.charges.tolist()
        bare, asked = (Chem.RemoveHs(whole) for whole in (record, molecule))
        assert Chem.MolToSmiles(bare, isomericSmiles=False) == Chem.MolToSmiles(asked, isomericSmiles=False)
        assert record.GetNumBonds() == molecule.GetNumBonds()
        assert float(record.GetProp("ENERGY_KCAL_PER_MOL")) == pytest.approx(2.0 - place)
        assert float(record.GetProp("LOWEST_ENERGY_KCAL_PER_MOL")) == -1.5
        assert (record.GetProp("RANK"), record.GetProp("GROUP")) == (str(3 - place), str(place + 1))
        assert record.GetProp("FORCE_FIELD") == "MMFF94" and record.GetProp("SMILES") == smiles
    assert not any(line[6:9] == "  4" for line in text.splitlines() if len(line) == 12), "no aromatic bond is left"


def test_no_pattern_of_double_bonds_leaves_the_ring_aromatic():
    odd = replace(conformers(1), charges=np.array([1] + [0] * 15))
    assert (kekulised(odd)[:6] == 1.5).all() and sdf_text(odd).count("  4  0\n") == 6
    even = kekulised(conformers(1))
    assert sorted(even[:6]) == [1, 1, 1, 2, 2, 2] and even[12] == 2


def test_what_v2000_cannot_number_is_refused_in_a_sentence():
    big = replace(
        conformers(1), symbols=("C",) * 1000, charges=np.zeros(1000, dtype=int), positions=np.zeros((1, 1000, 3)),
        path=np.zeros((0, 1, 1000, 3)),
    )  # fmt: skip
    with pytest.raises(ValueError, match="export this molecule as XYZ"):
        sdf_text(big)
    assert xyz_text(big).startswith("1000\n")


@pytest.mark.parametrize(
    "words", [*ODD_PROMPTS[:60], "$$$$", "$$$$$$$$\n$$$$", "a\n$$$$\nM  END\n> <X>\n1\n", "> <ENERGY>"]
)
def test_no_title_leaves_its_line(words):
    pytest.importorskip("rdkit")
    scene = conformers(2)
    odd = replace(scene, title=words, smiles=words or "C", field=words)
    text = sdf_text(odd)
    assert text.count("$$$$") == 2 and text.split("\n").count("$$$$") == 2
    assert len(text.splitlines()) == len(sdf_text(scene).splitlines()) and len(text.split("\n")[0]) <= 80
    records = read(text)
    assert len(records) == 2 and all(record.GetNumAtoms() == 16 for record in records)
    assert [float(record.GetProp("ENERGY_KCAL_PER_MOL")) for record in records] == pytest.approx(
        list(scene.energies), abs=1e-5
    )
    assert len(xyz_text(odd).splitlines()) == 2 * 18


def test_clean_text_is_one_line_without_what_turns_or_hides_it():
    assert clean("  a\u202eb\x00c\r\nd\u2028e$$$$f  ") == "a b c d e$f"
    assert clean("x" * 500, 80) == "x" * 80 and clean("fox \ud800") == "fox"


def test_an_xyz_holds_every_conformer():
    scene = conformers(3)
    lines = xyz_text(scene).splitlines()
    assert lines[0] == lines[18] == "16" and "MMFF94" in lines[1]
    places = np.array([[float(word) for word in line.split()[1:]] for line in lines[20:36]])
    assert np.abs(places - scene.positions[1]).max() <= 1e-6 and lines[20].split()[0] == "C"


def test_a_csv_has_rank_energy_and_shape():
    scene = conformers(3)
    lines = csv_text((scene,)).splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == ["rank 1", "rank 2", "rank 3"]
    assert [float(line.split(",")[2]) for line in lines] == pytest.approx(sorted(scene.energies))
    assert {line.split(",")[3] for line in lines} == {"1", "2"}


@pytest.mark.parametrize("words", ["</script><img src=x onerror=alert(1)>", "'\"`&<>\u2028\u2029", "<!--", "\ud800"])
def test_the_json_can_stand_anywhere_and_says_the_same(words):
    scene = replace(conformers(3, moments=4), captions=(words,) * 3)
    text = view_json(scene)
    assert not set(text) & set("<>&'\u2028\u2029") and text.isascii()
    data = json.loads(text)
    assert data["captions"] == [clean(words)] * 3 and data["symbols"] == list(scene.symbols)
    assert np.abs(np.array(data["positions"]).reshape(3, 16, 3) / 1000 - scene.positions).max() <= 5.1e-4
    assert np.array(data["path"]).shape == (4, 3, 48) and data["bonds"] == scene.bonds.tolist()
    assert data["order"][0] == int(scene.energies.argmin()) and len(data["colours"]) == 3
    turn = np.array(data["turn"])
    assert np.linalg.norm(turn) == pytest.approx(1, abs=1e-5)
    vector, w = turn[:3], turn[3]
    seen = np.array([p + 2 * np.cross(vector, np.cross(vector, p) + w * p) for p in np.eye(3)]).T
    assert np.abs(seen - orientation(scene)).max() < 1e-5


def test_a_long_path_is_thinned_with_both_ends():
    scene = conformers(40, moments=300)
    path = json.loads(view_json(scene))["path"]
    assert len(path) == 125 and path[0] != path[-1]
    assert np.abs(np.array(path[-1]) / 1000 - scene.path[-1].reshape(40, -1)).max() <= 5.1e-4


def test_energies_that_are_no_number_come_last_and_are_grey():
    scene = replace(conformers(3), energies=np.array([np.nan, 1.0, 0.0]), lowest=float("nan"))
    data = json.loads(view_json(scene))
    assert data["order"] == [2, 1, 0] and data["energies"][0] is None
    assert "<td>" in molecules_html(scene, "g") and energy_colours(scene.energies)[0].tolist() == [140] * 3
    assert picture(scene).shape == (480, 480, 3) and sdf_text(scene)


@pytest.mark.parametrize("n", [0, 1, 2, 24])
def test_the_html_is_complete_for_any_number_of_conformers(n):
    scene = conformers(n, moments=3)
    text = molecules_html(scene, "a<b").split("</style>")[1]
    assert text.count('type="radio"') == (n if n > 1 else 0) and ("st-mol-none" in text.split(">")[0]) == (n == 0)
    assert "a<b" not in text and "C₇H₇NO" in text if n else "No conformer yet" in text
    assert text.count("<section") == text.count("</section>") == 1


@pytest.mark.parametrize("words", HOSTILE)
def test_words_stay_words_in_the_html(words):
    text = molecules_html(
        conformers(2, title=words, smiles=words, caption=words.replace("{", "(").replace("}", ")")), "g"
    )
    plain = molecules_html(conformers(2), "g")
    assert text.count("<") == plain.count("<") and f"<h4>{html.escape(clean(words))}</h4>" in text


def test_the_picture_is_the_same_every_time_and_shows_the_lowest_in_its_elements():
    scene = conformers(5)
    pixels = picture(scene)
    assert pixels.shape == (480, 480, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, picture(scene)) and np.array_equal(pixels, still((scene,)))
    red = (pixels[..., 0].astype(int) - pixels[..., 1] > 80) & (pixels[..., 1] < 110)
    blue = pixels[..., 2].astype(int) - pixels[..., 0] > 80
    assert red.sum() > 300 and blue.sum() > 300, "an oxygen and a nitrogen"
    moved = replace(scene, positions=scene.positions + 5.0)
    assert np.abs(pixels.astype(int) - picture(moved)).mean() < 0.5, "where the molecule lies does not matter"
    assert len(np.unique(picture(conformers(0)).reshape(-1, 3), axis=0)) == 1


def test_the_first_look_is_a_rotation_from_where_the_molecule_is_flattest():
    turn = orientation(conformers(4))
    assert np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) == pytest.approx(1)
    heavy = conformers(4).positions[:, [0, 1, 2, 3, 4, 5, 11, 12, 13]].reshape(-1, 3)
    spread = ((heavy - heavy.mean(axis=0)) @ turn.T).std(axis=0)
    assert spread[0] > spread[1] > spread[2]


def test_the_viewer_ships_whole():
    text = viewer_script()
    assert len(text) > 500_000 and "createViewer" in text and "</script" not in text.lower()
