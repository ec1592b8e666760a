"""Text from anybody made into one molecule, with a sentence for whatever cannot be read."""

__all__ = ["Reading", "reading"]

import re
import threading
from dataclasses import dataclass
from typing import Any

from studio.problems.molecule_text import Source, plain, source

HARD_LIMIT = 300
MOST_PARTS = 20
MOST_CHARGE = 4
SMALL_PART = 13
CHOOSING = 3
ROUNDS = 3
ELEMENTS = 118
COUNTS = 3
PLACE = "place"
PARSE_ERROR = re.compile(r"(?:SMILES Parse Error|Error): (.+?)(?: while parsing| for input|$)", re.MULTILINE)
NO_ELEMENT = re.compile(r"Element '(.+?)' not found")
POSITION = re.compile(r"around position (\d+)")
# RDKit has one error log for all threads: what is captured must be one's own.
_ONE_AT_A_TIME = threading.Lock()
PLAIN = {
    "unclosed ring": "a ring number is opened and never closed",
    "extra open parentheses": "a branch '(' is never closed",
    "extra close parentheses": "a ')' closes no branch",
    "number too large": "a number is too large",
}


@dataclass(frozen=True, eq=False)
class Reading:
    """What a text says: RDKit's molecule without explicit hydrogens, its title, and what was changed on the way."""

    mol: Any
    smiles: str
    title: str
    notes: tuple[str, ...]


def reading(text: str, max_heavy: int) -> Reading:
    """Return the one molecule of a SMILES (a title may follow it), of a mol block or of the first record of an SDF.

    Raises `ValueError`, one sentence with the remedy, for everything that is not one whole molecule of at most
    `max_heavy` atoms other than hydrogen with a known place for every electron.
    """
    from rdkit import rdBase

    if not 1 <= max_heavy <= HARD_LIMIT:
        raise ValueError(f"max_heavy must be between 1 and {HARD_LIMIT}, got {max_heavy}")
    with _ONE_AT_A_TIME, rdBase.BlockLogs(), rdBase.CaptureErrorLog() as log:
        try:
            return _reading(text, max_heavy, log)
        except (RuntimeError, OverflowError, UnicodeError) as error:
            raise ValueError(f"RDKit could not read this molecule ({_first_line(error)}): draw it again") from error


def _reading(text: str, max_heavy: int, log: Any) -> Reading:
    found = source(text)
    raw = _parsed(found, sanitised=False)
    if raw is None:
        raise ValueError(_unparsed(found, log.messages))
    _check_atoms(raw)
    _check_size(raw, max_heavy)
    _check_valences(raw)
    mol = _parsed(found, sanitised=True)
    if mol is None:
        raise ValueError("RDKit could not make sense of this molecule's bonds: draw it again")
    for atom in mol.GetAtoms():
        atom.SetIntProp(PLACE, atom.GetIdx() + 1)
    _check_aromatic(mol)
    mol, isotopes = _without_isotopes(mol)
    mol, parts = _main_part(mol)
    _check_electrons(mol)
    mol, stereo = _with_stereo(mol)
    mol, smiles = _canonical(mol)
    return Reading(mol, smiles, found.title, (*found.notes, *isotopes, *parts, *stereo))


def _parsed(found: Source, sanitised: bool) -> Any:
    from rdkit import Chem

    if found.is_block:
        return Chem.MolFromMolBlock(found.text, sanitize=sanitised, removeHs=False)
    options = Chem.SmilesParserParams()
    options.sanitize, options.removeHs, options.allowCXSMILES = sanitised, False, False
    return Chem.MolFromSmiles(found.text, options)


def _unparsed(found: Source, messages: str) -> str:
    """Return why RDKit read nothing, in plain words."""
    if found.is_block:
        return f"this mol block cannot be read: {_misfit(found.text, messages)}, save it again as V2000 or V3000"
    error, place = PARSE_ERROR.search(messages), POSITION.search(messages)
    said = error.group(1) if error else "syntax error"
    if said == "syntax error":
        near = found.text[int(place.group(1)) - 1 :][:1] if place else ""
        unclosed = found.text.count("[") > found.text.count("]")
        said = "a bracket '[' is never closed" if unclosed else f"{near!r} does not belong" if near else "it breaks off"
    where = f" at place {place.group(1)}" if place else ""
    return f"this is not a SMILES: {PLAIN.get(said, plain(said))}{where}"


def _misfit(block: str, messages: str) -> str:
    """Return what is wrong with a mol block that RDKit does not read."""
    element = NO_ELEMENT.search(messages)
    if element:
        return f"there is no element {plain(element.group(1))}"
    lines = block.split("\n")
    if len(lines) > COUNTS and re.match(r" *\d", lines[COUNTS]) and "V3000" not in lines[COUNTS]:
        counts = [int(part) for part in (lines[COUNTS][:3], lines[COUNTS][3:6]) if part.strip().isdigit()]
        there = sum(not line.startswith("M  ") for line in lines[COUNTS + 1 :] if line.strip())
        if sum(counts) != there:
            return f"its fourth line promises {sum(counts)} atoms and bonds and there are {there}"
    return "its lines do not fit together"


def _named(atom: Any) -> str:
    """Return an atom by its place in the text, which it keeps when others before it are taken away."""
    place = atom.GetIntProp(PLACE) if atom.HasProp(PLACE) else atom.GetIdx() + 1
    return f"atom {place} ({atom.GetSymbol()})"


def _check_atoms(mol: Any) -> None:
    """Refuse atoms and bonds that stand for something else, or for nothing that a force field knows."""
    if not mol.GetNumAtoms():
        raise ValueError("there is no atom in this molecule: give a SMILES such as CCO, or a whole mol block")
    for atom in mol.GetAtoms():
        number = atom.GetAtomicNum()
        if number > ELEMENTS:
            raise ValueError(f"atom {atom.GetIdx() + 1} has the number {number}, and there is no such element")
        if not number or atom.HasQuery():
            raise ValueError(
                f"{_named(atom)} stands for any atom or a list of atoms: write the one that is meant instead"
            )
        if abs(atom.GetFormalCharge()) > MOST_CHARGE:
            raise ValueError(
                f"{_named(atom)} has the charge {atom.GetFormalCharge():+d}: "
                f"charges from -{MOST_CHARGE} to +{MOST_CHARGE} are read"
            )
    for bond in mol.GetBonds():
        kind = bond.GetBondType().name
        if bond.HasQuery() or kind not in ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC"):
            ends = f"{_named(bond.GetBeginAtom())} and {_named(bond.GetEndAtom())}"
            raise ValueError(
                f"the bond of {ends} is of a kind ({kind.lower()}) that force fields do not know: "
                "write a single, double, triple or aromatic one"
            )


def _check_size(mol: Any, max_heavy: int) -> None:
    """Refuse too many atoms or parts before anything costly is asked of RDKit."""
    from rdkit import Chem

    parts = Chem.GetMolFrags(mol)
    if len(parts) > MOST_PARTS:
        raise ValueError(f"this has {len(parts)} parts that no bond joins: give one molecule")
    heavy = [sum(mol.GetAtomWithIdx(index).GetAtomicNum() > 1 for index in part) for part in parts]
    if not max(heavy):
        raise ValueError("this has no atoms but hydrogen: give a molecule with at least one other atom")
    if max(heavy) > max_heavy:
        raise ValueError(
            f"this molecule has {max(heavy)} atoms other than hydrogen, and at most {max_heavy} are read: "
            "give a smaller one"
        )
    if mol.GetNumAtoms() > 8 * max_heavy + 8 or any(atom.GetNumExplicitHs() > 8 for atom in mol.GetAtoms()):
        raise ValueError("this has more hydrogens than its atoms can hold: leave them out, they are added")


def _check_valences(mol: Any) -> None:
    from rdkit import Chem

    for problem in Chem.DetectChemistryProblems(mol):
        kind = problem.GetType()
        if kind == "AtomValenceException":
            atom = mol.GetAtomWithIdx(problem.GetAtomIdx())
            found = re.search(r", (\d+), is greater", problem.Message())
            raise ValueError(
                f"{_named(atom)} has {found.group(1) if found else 'more'} bonds, more than it can have: "
                "take one away or give it a charge"
            )
        if kind == "AtomKekulizeException":
            atom = mol.GetAtomWithIdx(problem.GetAtomIdx())
            raise ValueError(f"{_named(atom)} is written aromatic but is in no ring: write it with a capital letter")
        if kind == "KekulizeException":
            atoms = ", ".join(str(index + 1) for index in list(problem.GetAtomIndices())[:8])
            raise ValueError(
                f"single and double bonds cannot be placed in the aromatic ring of atoms {atoms}: "
                "check its hydrogens, for example [nH] in pyrrole"
            )
        raise ValueError(f"RDKit cannot make sense of this molecule ({plain(problem.Message())}): draw it again")


def _check_aromatic(mol: Any) -> None:
    for bond in mol.GetBonds():
        if bond.GetBondType().name == "AROMATIC" and not bond.IsInRing():
            ends = f"{_named(bond.GetBeginAtom())} and {_named(bond.GetEndAtom())}"
            raise ValueError(f"the bond of {ends} is aromatic but in no ring: write a single or a double one")


def _without_isotopes(mol: Any) -> tuple[Any, list[str]]:
    """Return a molecule without isotope labels, atom maps and explicit hydrogens that carry nothing."""
    from rdkit import Chem

    labels = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetIsotope()]
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    mol = Chem.RemoveHs(mol)
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    return mol, ["isotope labels were left out: they do not change the energy"] if labels else []


def _main_part(mol: Any) -> tuple[Any, list[str]]:
    """Return the largest organic part, where the others are small enough to be its ions or its solvent."""
    from rdkit import Chem

    parts = list(Chem.GetMolFrags(mol, asMols=True))
    if len(parts) == 1:
        return mol, []
    parts.sort(key=lambda part: (-_carbon(part), -part.GetNumHeavyAtoms(), Chem.MolToSmiles(part)))
    main, *others = parts
    size = main.GetNumHeavyAtoms()
    if not _carbon(main):
        raise ValueError(f"this has {len(parts)} parts and none with carbon: give the one that is meant")
    for part in others:
        small = part.GetNumHeavyAtoms() <= SMALL_PART and 2 * part.GetNumHeavyAtoms() <= size
        ion = not _carbon(part) and part.GetNumHeavyAtoms() <= SMALL_PART
        if not small and not ion and (not Chem.GetFormalCharge(part) or part.GetNumHeavyAtoms() >= size):
            raise ValueError(
                f"this is a mixture of {_short(main)} and {_short(part)}, neither of them small: give one of them"
            )
    left = " and ".join(sorted({_short(part) for part in others})[:3])
    return main, [f"the smaller part {left} was left out"]


def _carbon(part: Any) -> bool:
    return any(atom.GetAtomicNum() == 6 for atom in part.GetAtoms())


def _short(part: Any) -> str:
    from rdkit import Chem

    smiles = Chem.MolToSmiles(part)
    return smiles if len(smiles) <= 40 else smiles[:37] + "..."


def _check_electrons(mol: Any) -> None:
    """Refuse unpaired electrons: no force field here has parameters for them."""
    for atom in mol.GetAtoms():
        count = atom.GetNumRadicalElectrons()
        if count:
            electrons = "an unpaired electron" if count == 1 else f"{count} unpaired electrons"
            raise ValueError(
                f"{_named(atom)} is a radical with {electrons}, which force fields do not know: "
                "write its hydrogens or its charge"
            )


def _with_stereo(mol: Any) -> tuple[Any, list[str]]:
    """Return a molecule all of whose stereocentres are given: RDKit's first embedding picks those left open."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom

    count = _undefined(mol)
    if not count:
        return mol, []
    centres = "a stereocentre was" if count == 1 else f"{count} stereocentres were"
    options = rdDistGeom.ETKDGv3()
    options.randomSeed, options.timeout = 1, CHOOSING
    solid = Chem.AddHs(mol)
    if rdDistGeom.EmbedMolecule(solid, options) != 0:
        return mol, [f"{centres} left open, and conformers may differ in them"]
    Chem.AssignStereochemistryFrom3D(solid)
    solid.RemoveAllConformers()
    return Chem.RemoveHs(solid), [f"{centres} left open, and RDKit picked: the SMILES says which"]


def _undefined(mol: Any) -> int:
    from rdkit import Chem

    open_ = Chem.StereoSpecified.Unspecified
    kinds = (Chem.StereoType.Atom_Tetrahedral, Chem.StereoType.Bond_Double)
    return sum(found.type in kinds and found.specified == open_ for found in Chem.FindPotentialStereo(mol))


def _canonical(mol: Any) -> tuple[Any, str]:
    """Return a molecule built from its canonical SMILES, so that however it was written, it comes out the same."""
    from rdkit import Chem

    smiles = Chem.MolToSmiles(mol)
    for _ in range(ROUNDS):
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            raise ValueError("RDKit writes this molecule in a way that it cannot read again: draw it differently")
        before, smiles = smiles, Chem.MolToSmiles(mol)
        if smiles == before:
            break
    # Hydrogens that the SMILES has to name, such as the one of [H]/N=C/C, go behind the heavy atoms as all others.
    order = sorted(range(mol.GetNumAtoms()), key=lambda index: mol.GetAtomWithIdx(index).GetAtomicNum() == 1)
    return Chem.RenumberAtoms(mol, order), smiles


def _first_line(error: Exception) -> str:
    lines = [plain(line) for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)] if lines else type(error).__name__
