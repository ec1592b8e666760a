"""Thousands of hostile molecules through the door to RDKit: each must be read or refused, in time and in words."""

__all__ = ["hostile"]

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from studio.problems.chemist import Chemist
from studio.problems.molecule_text import plain

LIMIT = 10.0
READING, EMBEDDING = 4.5, 5.0
DRUGS = """
CC(=O)Oc1ccccc1C(=O)O
CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O
CC(=O)Nc1ccc(O)cc1
Cn1c(=O)c2c(ncn2C)n(C)c1=O
CN1CCC[C@H]1c1cccnc1
CN1C(=O)CN=C(c2ccccc2)c2cc(Cl)ccc21
COc1ccc2cc(ccc2c1)[C@H](C)C(=O)O
CC(C)NCC(O)COc1cccc2ccccc12
CC(C)NCC(O)COc1ccc(CC(N)=O)cc1
CN(C)CCOC(c1ccccc1)c1ccccc1
CNCCC(Oc1ccc(cc1)C(F)(F)F)c1ccccc1
CN[C@H]1CC[C@@H](c2ccc(Cl)c(Cl)c2)c2ccccc21
CN(C)CCCN1c2ccccc2CCc2ccccc21
CN(C)CCCN1c2ccccc2Sc2ccc(Cl)cc21
Clc1ccc(cc1)C(c1ccccc1)N1CCN(CC1)CCOCC(=O)O
OC(CCCN1CCC(O)(CC1)c1ccc(Cl)cc1)(c1ccc(F)cc1)
CCOC(=O)C1=C(C)NC(C)=C(C1c1cccc(c1)[N+](=O)[O-])C(=O)OC
COC(=O)C1=C(C)NC(C)=C(C1c1ccccc1[N+](=O)[O-])C(=O)OC
CCCc1nn(C)c2c1nc([nH]c2=O)-c1cc(ccc1OCC)S(=O)(=O)N1CCN(C)CC1
Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(n1)-c1cccnc1
COCCOc1cc2ncnc(Nc3cccc(c3)C#C)c2cc1OCCOC
COc1cc2ncnc(Nc3ccc(F)c(Cl)c3)c2cc1OCCCN1CCOCC1
CNC(=O)c1cc(ccn1)Oc1ccc(NC(=O)Nc2ccc(Cl)c(c2)C(F)(F)F)cc1
CC(C)c1c(C(=O)Nc2ccccc2)c(-c2ccccc2)c(-c2ccc(F)cc2)n1CC[C@@H](O)C[C@@H](O)CC(=O)O
CCC(C)(C)C(=O)O[C@H]1C[C@@H](C)C=C2C=C[C@H](C)[C@H](CC[C@@H]3C[C@@H](O)CC(=O)O3)[C@@H]12
CC(=O)SCC(CC(=O)N1CCCC1C(=O)O)C
C[C@H](N[C@@H](CCc1ccccc1)C(=O)O)C(=O)N1CCC[C@H]1C(=O)O
CCCCc1nc(Cl)c(CO)n1Cc1ccc(cc1)-c1ccccc1-c1nn[nH]n1
NS(=O)(=O)c1cc(C(=O)O)c(NCc2ccco2)cc1Cl
NS(=O)(=O)c1cc2c(cc1Cl)NCNS2(=O)=O
CN(C)C(=N)NC(N)=N
COc1ccc2[nH]c(nc2c1)S(=O)Cc1ncc(C)c(OC)c1C
CNC(=C[N+](=O)[O-])NCCSCc1ccc(CN(C)C)o1
CN1CCN(CC1)C1=Nc2cc(Cl)ccc2Nc2ccccc21
CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O
CC1(C)S[C@@H]2[C@H](NC(=O)[C@H](N)c3ccc(O)cc3)C(=O)N2[C@H]1C(=O)O
CN(C)[C@H]1[C@@H]2C[C@H]3C(=C(O)[C@]2(O)C(=O)C(C(N)=O)=C1O)C(=O)c1c(O)cccc1[C@@]3(C)O
O=C(O)c1cn(C2CC2)c2cc(N3CCNCC3)c(F)cc2c1=O
Cc1cc(no1)NS(=O)(=O)c1ccc(N)cc1
COc1cc(Cc2cnc(N)nc2N)cc(OC)c1OC
NNC(=O)c1ccncc1
Nc1nc2c(ncn2COCCO)c(=O)[nH]1
Cc1cn([C@H]2C[C@H](N=[N+]=[N-])[C@@H](CO)O2)c(=O)[nH]c1=O
NC1=NC(=O)N(C=C1)[C@@H]1CS[C@H](CO)O1
O=c1[nH]cc(F)c(=O)[nH]1
CN(Cc1cnc2nc(N)nc(N)c2n1)c1ccc(cc1)C(=O)N[C@@H](CCC(=O)O)C(=O)O
ClCCN(CCCl)P1(=O)NCCCO1
C[C@]12CC[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@@H]2O
C[C@]12CC[C@H]3[C@@H](CCc4cc(O)ccc34)[C@@H]1CC[C@@H]2O
C[C@]12C[C@H](O)[C@H]3[C@@H](CCC4=CC(=O)CC[C@]34C)[C@@H]1CC[C@]2(O)C(=O)CO
CC(C)CCC[C@@H](C)[C@H]1CC[C@H]2[C@@H]3CC=C4C[C@@H](O)CC[C@]4(C)[C@H]3CC[C@]12C
CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5
COC(=O)[C@H]1[C@@H](OC(=O)c2ccccc2)C[C@@H]2CC[C@H]1N2C
CCC(=O)N(c1ccccc1)C1CCN(CCc2ccccc2)CC1
O=C(O)CCCC[C@@H]1SC[C@@H]2NC(=O)N[C@H]12
OC[C@H]1OC(O)[C@H](O)[C@@H](O)[C@@H]1O
N[C@@H](Cc1c[nH]c2ccccc12)C(=O)O
NCC(=O)N[C@@H](CO)C(=O)N[C@@H](Cc1ccccc1)C(=O)O
CC(=O)[O-].[Na+]
C[N+](C)(C)CCOC(C)=O.[Cl-]
OB(O)c1ccccc1
C[Si](C)(C)c1ccccc1
FC(F)(F)C(F)(F)C(F)(F)C(=O)O
C12C3C4C1C5C2C3C45
""".split()
LETTERS = [
    *"CNOSFPBIHcnosp()[]()[]=#$:.-+@/\\%0123456789*~<>&|^ ",
    "Cl",
    "Br",
    "[nH]",
    "[O-]",
    "[NH3+]",
    "[C@@H]",
    "%12",
]
ODD_LETTERS = ["\0", "\x07", "\x1b[2J", "\n", "\r", "\t", "é", "Ж", "\u202e", "\ud800", "🙂", "\ufeff", "\u00a0", "㎏"]
ELEMENTS = "H He Li Be B C N O F Na Mg Al Si P S Cl K Ca Fe Cu Zn Se Br Pd Sn I Xe Pt Au Hg U Og Rf Uuo Xx Q".split()
MARKUP = [
    "</script><img onerror=alert(1) src=x>",
    "${7*7}",
    "' OR 1=1 --",
    "../../etc/passwd",
    "%s%n%x",
    "\0",
    "a" * 9_999,
]


@dataclass
class _Tally:
    """What became of the inputs so far."""

    molecules: int = 0
    conformers: int = 0
    refusals: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


def hostile(count: int = 5_000, seed: int = 0) -> dict[str, float]:
    """Return what became of `count` hostile inputs: how many were read, refused, or neither, and the slowest.

    Each goes through reading and, where it reads, a short embedding. A failure is an error other than a `ValueError`
    with a sentence, an answer that is no molecule with finite positions, or one that took over ten seconds.
    """
    tally = _Tally()
    with Chemist() as chemist:
        chemist.read("C")
        for index in range(count):
            generator = random.Random(f"{seed}/{index}")
            text = KINDS[index % len(KINDS)](generator)
            began = time.perf_counter()
            trouble = _trouble(chemist, text, tally)
            took = time.perf_counter() - began
            tally.slowest = max(tally.slowest, took)
            if trouble or took > LIMIT:
                tally.failures.append(f"{index} {text[:200]!a}: {trouble or f'{took:.1f} s'}")
        restarts = chemist.starts - 1
    if tally.failures:
        print("\n".join(tally.failures), flush=True)
    return {
        "hostile_inputs": count,
        "hostile_molecules": tally.molecules,
        "hostile_embedded": tally.conformers,
        "hostile_refused": tally.refusals,
        "hostile_failures": len(tally.failures),
        "hostile_slowest_s": round(tally.slowest, 2),
        "hostile_restarts": restarts,
    }


def _trouble(chemist: Chemist, text: str, tally: _Tally) -> str:
    """Return what went wrong with one input, "" where it was answered as it should be."""
    try:
        found = chemist.read(text, seconds=READING)
    except ValueError as error:
        tally.refusals += 1
        return _no_sentence(str(error))
    except Exception as error:
        return repr(error)
    tally.molecules += 1
    if plain(found.title) != found.title or not all(note.isprintable() for note in found.notes):
        return f"the title or a note is not plain: {found.title!r} {found.notes!r}"
    try:
        positions = chemist.embed(found, 1, seconds=EMBEDDING)
    except ValueError as error:
        return _no_sentence(str(error))
    except Exception as error:
        return repr(error)
    tally.conformers += 1
    whole = positions.shape == (1, len(found.symbols), 3) and np.isfinite(positions).all()
    return "" if whole else f"positions of the shape {positions.shape}"


def _no_sentence(said: str) -> str:
    good = said.isprintable() and 20 < len(said) < 400 and " " in said and "crashed" not in said
    return "" if good else f"no sentence: {said!r}"


def _drug(generator: random.Random) -> str:
    return generator.choice(DRUGS)


def _mutated(generator: random.Random) -> str:
    text = _drug(generator)
    for _ in range(generator.randint(1, 3)):
        place, end = sorted(generator.choices(range(len(text) + 1), k=2))
        kind = generator.randrange(6)
        if kind < 2:
            text = text[:place] + generator.choice(LETTERS) + text[place:]
        elif kind < 4:
            text = text[:place] + text[place + 1 :]
        elif kind == 4:
            text = text[:end] + text[place:end] + text[end:]
        else:
            other = _drug(generator)
            text = text[:place] + other[generator.randrange(len(other)) :]
    return text


def _garbled(generator: random.Random) -> str:
    text = _mutated(generator)
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(text) + 1)
        text = text[:place] + generator.choice(ODD_LETTERS) + text[place:]
    return text


def _grammatical(generator: random.Random) -> str:
    """Return a random word of SMILES' grammar: atoms, branches and rings that close."""
    atoms = [
        "C",
        "C",
        "C",
        "N",
        "O",
        "S",
        "F",
        "c",
        "n",
        "[nH]",
        "[N+]",
        "[O-]",
        "P",
        "Cl",
        "[Si]",
        "B",
        "[C@H]",
        "[C@@]",
    ]
    text, open_, rings = "C", 0, []
    for _ in range(generator.randint(1, 60)):
        kind = generator.random()
        if kind < 0.62:
            text += generator.choice(["", "", "", "", "=", "#", "/", "\\"]) + generator.choice(atoms)
        elif kind < 0.72:
            text, open_ = text + "(" + generator.choice(atoms), open_ + 1
        elif kind < 0.82 and open_:
            text, open_ = text + ")" + generator.choice(atoms), open_ - 1
        elif kind < 0.92 and len(rings) < 90:
            number = next(number for number in range(1, 99) if number not in rings)
            rings.append(number)
            text += f"%{number:02d}"
        elif rings:
            text += f"%{rings.pop(generator.randrange(len(rings))):02d}"
    return text + "".join(f"C%{number:02d}" for number in rings) + ")" * open_


def _letters(generator: random.Random) -> str:
    return "".join(generator.choices(LETTERS + ODD_LETTERS[:6], k=generator.randint(0, 80)))


def _large(generator: random.Random) -> str:
    size = generator.choice([30, 80, 149, 150, 151, 500, 1_000, 1_999, 2_000, 2_001, 100_000])
    unit = generator.choice(
        ["C", "C=C", "c1ccccc1", "C#C", "NCC(=O)", "C1CC1", "[13CH2]", "OCC", "N", "S", "[Si](C)(C)O"]
    )
    text = unit * max(1, size // len(unit))
    return generator.choice([text, f"C1{text}C1", f"{text[:1_900]}.{text[:90]}"])


def _rings(generator: random.Random) -> str:
    n = generator.choice([3, 5, 8, 12, 20, 30, 48])
    ladder = "C" + "".join(f"%{k:02d}" for k in range(10, 10 + n)) + "".join(f"C%{k:02d}" for k in range(10, 10 + n))
    fused = "c1ccc2" * n + "ccccc2" * n
    cage = "".join(f"C{k % 9 + 1}" for k in range(n)) + "".join(f"C{k % 9 + 1}" for k in range(n))
    acene = "C1=CC=C" + "".join(f"C{k % 2 + 2}=C" for k in range(n)) + "C1"
    spiro = "C1" + "CC21CC" * n + "C1"
    kekule = "c1" + "c(c" * n + "c" + ")" * n + "c1"
    giant = f"C%({generator.choice([100, 9_999, 99_999, 10**9])})CCC%({generator.choice([100, 9_999, 99_999])})"
    catenane = f"C1{'C' * n}1.C2{'C' * n}2"
    mesh = "".join(f"C%{10 + k}%{10 + (k * 7 + 3) % n}" for k in range(n))
    return generator.choice([ladder, fused, cage, acene, spiro, kekule, giant, catenane, mesh])


def _nested(generator: random.Random) -> str:
    n = generator.choice([10, 60, 200, 600, 990, 30_000])
    return generator.choice(
        ["C(" * n + "C" + ")" * n, "C(" * n, "(" * n, "[" * n, "C" + "(C)" * n, "C(C(C)" * n + ")" * n]
    )


def _charged(generator: random.Random) -> str:
    name, charge = generator.choice(ELEMENTS), generator.choice(["", "+", "-", "+2", "-3", "++", "+99", "-15", "+-"])
    isotope, count = (
        generator.choice(["", "2", "13", "999", "70000", "0"]),
        generator.choice(["", "H", "H2", "H4", "H99"]),
    )
    mapped = generator.choice(["", ":1", ":999999", ":9999999999"])
    atom = f"[{isotope}{name}{generator.choice(['', '@', '@@', '@SP2', '@OH19'])}{count}{charge}{mapped}]"
    place = generator.choice(
        ["{0}", "C{0}", "C{0}C", "{0}.{0}", "{0}C{0}", "c1cc{0}cc1", "{1}.{0}", "{1}{0}", "C1{0}C1"]
    )
    return place.format(atom, _drug(generator))


def _salts(generator: random.Random) -> str:
    others = [
        "[Na+]",
        "Cl",
        "O",
        "[Cl-]",
        "CS(=O)(=O)O",
        "CO",
        "[K+]",
        "O=C(O)C=CC(=O)O",
        "[Pt+2]",
        "[H+]",
        "*",
        "[CH3]",
    ]
    parts = [_drug(generator), *generator.choices(others, k=generator.randint(1, 30))]
    generator.shuffle(parts)
    return generator.choice([".", ".", "..", ". "]).join(parts)


def _titled(generator: random.Random) -> str:
    return f"{_drug(generator)} {generator.choice(MARKUP)} {generator.choice(ODD_LETTERS)} |{generator.choice(MARKUP)}|"


def _block(generator: random.Random) -> str:
    """Return a mol block of a drug with lies in it, maybe as an SDF with fields."""
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdDepictor

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(_drug(generator))
        rdDepictor.Compute2DCoords(mol)
        mol.SetProp("_Name", plain(generator.choice(MARKUP)))
        text = Chem.MolToV3KMolBlock(mol) if generator.random() < 0.4 else Chem.MolToMolBlock(mol)
    if generator.random() < 0.15:
        mark = generator.choice(MARKUP)
        return f"{text}> <{mark}>\n{mark}\n\n$$$$\n" + text * generator.randint(0, 300)
    lines = text.split("\n")
    for _ in range(generator.randint(1, 3)):
        _lie(generator, lines)
    text = generator.choice(["\n", "\n", "\n", "\r\n", "\r"]).join(lines)
    return text[: generator.randrange(len(text) + 1)] + "M  END" if generator.random() < 0.1 else text


def _lie(generator: random.Random, lines: list[str]) -> None:
    """Change one line of a mol block for the worse."""
    place = generator.choice([3, 5, generator.randrange(len(lines)), generator.randrange(len(lines))]) % len(lines)
    numbers = ["nan", "inf", "-1", "0", "99", "999", "999999999", "1e400", "4294967296", "", "x"]
    parts = lines[place].split(" ")
    kind = generator.randrange(7)
    if kind == 0:
        lines.insert(place, lines[generator.randrange(len(lines))])
    elif kind == 1:
        del lines[place : place + generator.randint(0, 2)]
    elif kind == 2:
        lines[place] = lines[place][: generator.randrange(len(lines[place]) + 1)]
    elif kind == 3:
        parts[generator.randrange(len(parts))] = generator.choice(numbers)
        lines[place] = " ".join(parts)
    elif kind == 4:
        at = generator.randrange(len(lines[place]) + 1)
        lines[place] = lines[place][:at] + generator.choice(LETTERS + ODD_LETTERS) + lines[place][at + 1 :]
    elif kind == 5:
        values = " ".join(generator.choice(["1", "2", "-1", "15", "999"]) for _ in range(4))
        name = generator.choice(
            ["M  CHG", "M  RAD", "M  ISO", "M  STY", "M  RGP", "M  ALS", "M  SAL", "M  V30", "A  ", "G  "]
        )
        lines.insert(-2 % len(lines), f"{name}  {generator.choice(['1', '2', '9', '-1', '999'])} {values}")
    else:
        old, new = generator.choice(
            [("0.0", "nan"), ("C", "Xx"), ("C", "R#"), ("C", "L"), ("1", "9"), ("2D", "3D"), ("0", "1")]
        )
        lines[place] = lines[place].replace(old, new)


KINDS: tuple[Callable[[random.Random], str], ...] = (
    _mutated, _mutated, _mutated, _garbled, _grammatical, _grammatical, _grammatical, _letters, _large, _rings, _nested,
    _charged, _charged, _salts, _titled, _block, _block, _block, _drug, _mutated,
)  # fmt: skip
